"""Evaluation: the published protocols of CMPC, and the figures of generated faces. The pipeline never imports it.

`recognition.evaluate_lists` runs list files of matching, verification and retrieval on embeddings;
`generation.GenerationEvaluation` generates faces of a bundle and measures them. Each returns a section of
`report.Report`, which `page.write_report` writes as JSON and HTML (docs/evaluation.md).
"""
