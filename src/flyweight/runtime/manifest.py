"""`bundle.json` as a schema: what a bundle says about itself."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, field_validator, model_validator

FORMAT_VERSION = 1


def _inside(name: str) -> str:
    if not name or name.startswith("/") or ".." in name.split("/") or "\\" in name:
        raise ValueError(f"{name!r} leads out of the bundle")
    return name


RelativePath = Annotated[str, AfterValidator(_inside)]


class VariantManifest(BaseModel):
    """One shipped model file: its format, and the logits it must give on the golden images."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    file: RelativePath
    format: str = "onnx"
    precision: str = "fp32"
    backend: str = "onnxruntime"
    tolerance: float = Field(ge=0, description="largest accepted |logit - golden logit|")
    golden: RelativePath
    beside: tuple[RelativePath, ...] = Field(default=(), description="further files that the model file needs")
    threads: int | None = Field(default=None, ge=1, description="that it was measured fastest with")
    source: str | None = Field(default=None, description="the variant it was converted from, whose graph is counted")
    size_bytes: int = Field(gt=0, description="of the model file and those beside it")
    accuracy: dict[str, Any] | None = None


class Manifest(BaseModel):
    """The content of bundle.json."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    format_version: Literal[1] = 1
    name: str
    created: str
    flyweight_version: str
    classes: tuple[str, ...] = Field(min_length=2)
    preprocess: dict[str, Any]
    default: str
    temperature: float = Field(default=1.0, gt=0)
    reject_threshold: float | None = Field(default=None, ge=0, le=1)
    variants: dict[str, VariantManifest] = Field(min_length=1)
    split: dict[str, Any] = {}
    provenance: dict[str, Any] = {}

    @field_validator("classes")
    @classmethod
    def _classes_differ(cls, classes: tuple[str, ...]) -> tuple[str, ...]:
        twice = sorted({name for name in classes if classes.count(name) > 1})
        if twice:
            raise ValueError(f"the class {twice[0]!r} stands twice")
        return classes

    @model_validator(mode="after")
    def _default_is_a_variant(self) -> Manifest:
        if self.default not in self.variants:
            raise ValueError(f"default {self.default!r} is none of the variants {sorted(self.variants)}")
        return self

    @model_validator(mode="after")
    def _sources_are_variants(self) -> Manifest:
        for name, variant in self.variants.items():
            source = None if variant.source is None else self.variants.get(variant.source)
            if variant.source is not None and (source is None or source.source is not None):
                raise ValueError(f"the variant {name!r} comes from {variant.source!r}, which is no exported variant")
        return self
