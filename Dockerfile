# Images for CPUs, built from the repository's folder. The one of a cluster is in configs/cluster/kuberay/.
#
#   docker build -t genre .
#   docker run --rm --shm-size=2g -v "$PWD:/work" genre demo
#
#   docker build -t genre-light --build-arg LOCK=requirements-light.lock .
#   docker run --rm -v "$PWD:/work" genre-light tag song.mp3 model=model.onnx
#
# The first runs every job and takes about 6.7 GB, since the torch of the lock brings CUDA; the second tags with exported
# models and takes about 0.5 GB. Files are written as user 1000; with --user "$(id -u)" as you.

FROM python:3.11-slim-bookworm AS build
ARG LOCK=requirements.lock
WORKDIR /build
COPY requirements.lock requirements-light.lock ./
RUN python -m venv /opt/genre && /opt/genre/bin/pip install --no-cache-dir --require-hashes -r ${LOCK}
# what builds the wheel has its hash in the lock as well, and stays in this stage
RUN sed -n '/^setuptools==/,/[^\\]$/p' requirements.lock > tools.lock && \
    pip install --no-cache-dir --require-hashes -r tools.lock
COPY pyproject.toml MANIFEST.in README.md LICENSE ./
COPY configs configs
COPY genre genre
COPY ray_jobs ray_jobs
RUN pip wheel --no-deps --no-index --no-build-isolation --wheel-dir dist . && \
    /opt/genre/bin/pip install --no-cache-dir --no-deps --no-index dist/*.whl

FROM python:3.11-slim-bookworm
RUN useradd --create-home --uid 1000 genre && install --directory --owner=genre /work
COPY --from=build /opt/genre /opt/genre
ENV PATH=/opt/genre/bin:$PATH PYTHONUNBUFFERED=1
USER genre
WORKDIR /work
ENTRYPOINT ["genre"]
CMD ["--help"]
