"""Networks of timm, an optional package."""

from importlib.util import find_spec
from pathlib import Path
from typing import Any, final

from torch import nn

from modules.architecture import Architecture, InputFormat, Interpolation, State

PREFIX = "timm/"  # as on the Hugging Face hub; tells timm's networks from torchvision's of the same name
FILE_NAMES = ("model.safetensors", "pytorch_model.bin")  # of the weights on the hub


def is_timm_name(name: str) -> bool:
    """Return whether timm has a network of this name, with or without the tag of its weights: resnet18.a1_in1k."""
    if find_spec("timm") is None:
        return False
    import timm

    is_known: bool = timm.is_model(name.removeprefix(PREFIX).partition(".")[0])
    return is_known


def timm_names() -> list[str]:
    """Return the names of timm's networks; none if it is not installed."""
    if find_spec("timm") is None:
        return []
    import timm

    names: list[str] = timm.list_models()
    return names


@final
class TimmNetwork(Architecture):
    """A classifier of timm, with the input that its weights expect.

    Args:
        name: timm's name, with or without the tag of the weights, and with or without the prefix "timm/".
        arguments: Of `timm.create_model`.

    Raises:
        ValueError: The network has no weights with this tag.
    """

    def __init__(self, name: str, arguments: dict[str, Any]) -> None:
        import timm

        self.name, self._own_name, self._arguments = name, name.removeprefix(PREFIX), arguments
        architecture, _, tag = self._own_name.partition(".")
        if tag and not timm.is_model_pretrained(self._own_name):
            names = ", ".join(timm.list_pretrained(f"{architecture}.*")) or "none"
            raise ValueError(f"model.name is {name}: timm has no such weights; those of {architecture} are {names}")
        config = timm.get_pretrained_cfg(self._own_name)
        interpolation: Interpolation = config.interpolation
        self._config = config
        self.input_format = InputFormat(config.input_size[-1], config.mean, config.std, interpolation)
        self.source = f"https://huggingface.co/{config.hf_hub_id}" if config.hf_hub_id else config.url or ""
        self.categories = self._categories()

    def _categories(self) -> tuple[str, ...]:
        from timm.data import ImageNetInfo, infer_imagenet_subset

        subset = infer_imagenet_subset(self._config.to_dict())
        if subset is None:
            return ()
        info = ImageNetInfo(subset)
        return tuple(info.index_to_description(index) for index in range(info.num_classes()))

    def build(self, image_size: int | None = None) -> nn.Module:
        import timm

        own_size = {"img_size": image_size} if image_size and self._config.fixed_input_size else {}
        network: nn.Module = timm.create_model(self._own_name, pretrained=False, **own_size | self._arguments)
        return network

    def cached(self) -> Path | None:
        from huggingface_hub import try_to_load_from_cache

        found = [try_to_load_from_cache(self._config.hf_hub_id, name) for name in FILE_NAMES if self._config.hf_hub_id]
        return next((Path(path) for path in found if isinstance(path, str)), None)

    def download(self) -> State:
        import timm

        try:
            state: State = timm.create_model(self._own_name, pretrained=True, **self._arguments).state_dict()
        except Exception as error:  # the Hugging Face hub raises errors of several libraries
            reason = next(iter(str(error).splitlines()), type(error).__name__)
            raise ValueError(
                f"cannot download the weights of {self.name} from {self.source} ({reason}): "
                "set model.weights to a file or model.pretrained to false"
            ) from error
        return state

    def heads(self, network: nn.Module) -> list[str]:
        classifier = self._config.classifier
        return [classifier] if isinstance(classifier, str) else list(classifier)
