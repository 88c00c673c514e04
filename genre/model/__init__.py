"""A trained model: network and normaliser, card, files, calibration, export.

Input: a trained `Classifier`, or the address of a saved model. Output: probabilities for spectrograms and audio.
Independent of training loops, corpora and reports.

    classifier, layout        the network with its normaliser, in torch
    card                      model.json: the only reader and writer
    checkpoint                a model's folder: card and weights; a trainer's state
    calibration               validation.parquet: temperature and threshold
    finetuning                start from a saved model on other genres
    saved_model               one or several saved models without their weights: `SavedModel`, `SavedEnsemble`
    torch_ensemble            folders, loaded; their files are decoded by `spectrogram_decoder`
    onnx_ensemble             exported files, loaded; their files are decoded by `waveform_decoder`
    waveform_classifier       the graph that is exported
    graph_export, onnx_file   write an exported file; read its metadata
"""
