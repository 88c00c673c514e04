"""A trained model: network and normaliser, card, files, calibration, export.

Input: a trained `Classifier`, or the address of a saved model. Output: probabilities for spectrograms and audio.
Independent of training loops, corpora and reports.

    classifier, layout        the network with its normaliser, in torch
    card                      model.json: the only reader and writer
    checkpoint                a model's folder: card and weights
    calibration, thresholds   validation.parquet: the temperature, and from which probability a genre is reported
    provenance                which tracks of a features folder a saved model learned from
    finetuning                train a saved model further, on the same or on other genres
    saved_model               cards and calibration of saved models: `SavedModel`, `SavedEnsemble`; no weights
    decoder                   from files and arrays to the clips that a model takes
    torch_ensemble            predictions of models in folders
    onnx_ensemble             predictions of exported models
    waveform_classifier       the graph that is exported
    graph_export, onnx_file   write an exported file; read its metadata
"""
