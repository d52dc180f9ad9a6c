"""Networks: tensors in, tensors out. `build_model(name)` makes any of them; the names are found on first use."""

from model.registry import ModelSpec, build_model, identify, list_models, model_spec, register_model

__all__ = ["ModelSpec", "build_model", "identify", "list_models", "model_spec", "register_model"]
