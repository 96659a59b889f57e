"""Whether a bundle's C is what Flyweight writes of its ONNX file: only then is it compiled and run here."""

from __future__ import annotations

from flyweight import __version__
from flyweight.errors import BundleError, ExportError
from flyweight.runtime.bundle import Bundle, Variant

MORE = "docs/microcontrollers.md#who-wrote-it"


def compile_if_ours(bundle: Bundle, variant: Variant) -> None:
    """Compile a variant in C where it is what Flyweight writes; variants that another backend runs need nothing.

    What is compiled is the text that was written here, of which the backend then finds the library.

    Raises:
        BundleError: As `check_ours`.
        MissingExtraError: There is no C compiler.
    """
    if variant.backend == "c":
        from flyweight.runtime.backends.c import build

        build(*check_ours(bundle, variant), variant.file.stem)


def check_ours(bundle: Bundle, variant: Variant) -> tuple[bytes, bytes]:
    """Write a variant in C again from its ONNX variant and return the text of .c and .h, which equals the bundle's.

    Raises:
        BundleError: The texts differ, or there is no ONNX file to write them from.
    """
    from flyweight.export.c.source import source_of  # imports onnx, which other variants need not wait for
    from flyweight.runtime.backends.c import texts_of

    source = _source(bundle, variant)
    try:
        made = source_of(bundle, source, stem=variant.file.stem, title=source.name)
    except ExportError as error:
        raise _refused(variant, f"C cannot be written of {source.file.name!r}: {error.what}") from error
    code, header = made.code.encode(), made.header.encode()
    for found, ours, suffix in zip(texts_of(variant.file), (code, header), (".c", ".h"), strict=True):
        if found != ours:
            raise _refused(
                variant,
                f"{variant.file.with_suffix(suffix).name!r} is not the text that Flyweight {__version__} writes of "
                f"{source.file.name!r}",
            )
    return code, header


def _source(bundle: Bundle, variant: Variant) -> Variant:
    """Return the ONNX variant that a variant in C was written from, as the bundle says; the text then proves it."""
    own = bundle.provenance.get("variants", {})
    said = own.get(variant.name, {}).get("converted_from", variant.source) if isinstance(own, dict) else variant.source
    source = bundle.variants.get(said) if isinstance(said, str) else None
    if source is None or source.format != "onnx":
        raise _refused(variant, f"the bundle has no ONNX variant {said!r} to write it again from")
    return source


def _refused(variant: Variant, why: str) -> BundleError:
    return BundleError(
        f"the variant {variant.name!r} is a program in C, which is not compiled here: {why}",
        do=f"convert it again: flyweight convert BUNDLE --to c --precision {variant.precision} --out OUT; or use the "
        "ONNX variant",
        more=MORE,
    )
