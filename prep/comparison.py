"""Which data set a source is, and where it contradicts that set's manifest, in sentences.

`match` finds the manifest by the class folders, `compare` says what is missing or surplus,
`published_statistics` what others measured. None reads a picture.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from prep.manifest import Manifest, PublishedStatistics, load, names
from prep.program import examples


def match(classes: Sequence[str]) -> Manifest | None:
    """The manifest that knows every one of `classes`, and of whose classes at least half are there.

    So ImageNet with some class folders missing is still ImageNet, and ten of its classes are not.
    """
    wanted = set(classes)
    candidates = []
    for name in names():
        manifest = load(name)
        folders = {known.folder for known in manifest.classes}
        if wanted <= folders and 2 * len(wanted) >= len(folders):
            candidates.append((len(wanted) / len(folders), manifest))
    return max(candidates, key=lambda pair: pair[0])[1] if candidates else None


def knowing(classes: Sequence[str]) -> list[Manifest]:
    """The manifests that know every one of `classes`, however few these are."""
    return [manifest for manifest in map(load, names()) if manifest.knows(classes)]


def published_statistics(classes: Sequence[str]) -> tuple[PublishedStatistics, ...]:
    """What others measured on the data set that has just these classes; () when none is known."""
    manifest = match(classes)
    if manifest is None or {known.folder for known in manifest.classes} != set(classes):
        return ()
    return manifest.statistics


def compare(
    manifest: Manifest,
    classes: Sequence[str],
    counts: Mapping[str, Sequence[int] | int | None],
    archives: Mapping[str, int],
) -> list[str]:
    """What contradicts the manifest, one sentence each; none when all agrees.

    classes: the folders that are there. counts: the splits that are there, each with its images
    per class in the order of `classes`, with all its images where it has no labels, or None where
    neither is known. archives: name and bytes of the files that are there; those that the manifest
    does not know are passed over.
    """
    return [
        *_compare_classes(manifest, classes),
        *_compare_splits(manifest, counts),
        *(
            sentence
            for split, known in counts.items()
            if known is not None and split in manifest.splits
            for sentence in _compare_counts(manifest, split, classes, known)
        ),
        *(
            f"{archive.file} has {archives[archive.file]:,} bytes instead of {archive.bytes:,}"
            for archive in manifest.archives
            if archive.file in archives
            and archive.bytes is not None
            and archives[archive.file] != archive.bytes
        ),
    ]


def _compare_classes(manifest: Manifest, classes: Sequence[str]) -> list[str]:
    present, known = set(classes), {known.folder for known in manifest.classes}
    missing = [
        f"{known.folder} ({known.name})"
        for known in manifest.classes
        if known.folder not in present and not known.optional
    ]
    foreign = [folder for folder in classes if folder not in known]
    sentences = []
    if missing:
        sentences.append(
            f"{len(missing)} of the {len(known)} classes of {manifest.name} missing: "
            f"{examples(missing)}"
        )
    if foreign:
        sentences.append(
            f"{len(foreign)} of {len(classes)} classes unknown to {manifest.name}: "
            f"{examples(foreign)}"
        )
    return sentences


def _compare_splits(manifest: Manifest, present: Iterable[str]) -> list[str]:
    """A split without labels may be left out."""
    missing = [
        f"split {name} missing: {manifest.name} has {split.images:,} images there"
        for name, split in manifest.splits.items()
        if split.labelled and name not in present
    ]
    surplus = [
        f"split {name} unknown to {manifest.name}, which has {', '.join(manifest.splits)}"
        for name in present
        if name not in manifest.splits
    ]
    return missing + surplus


def _compare_counts(
    manifest: Manifest, split: str, classes: Sequence[str], images: Sequence[int] | int
) -> list[str]:
    total = images if isinstance(images, int) else sum(images)
    expected = manifest.images(split, classes)
    sentences = []
    if expected is not None and total != expected:
        sentences.append(f"{split} has {total:,} images instead of {expected:,}")
    if isinstance(images, int):
        return sentences
    counts = dict(zip(classes, images, strict=True))
    different = [
        f"{known.folder} ({known.name}) {counts[known.folder]:,} instead of {known.images[split]:,}"
        for known in manifest.classes
        if split in known.images
        and known.folder in counts
        and counts[known.folder] != known.images[split]
    ]
    if different:
        sentences.append(
            f"{split} has other numbers of images in {len(different)} of {len(counts)} classes: "
            f"{examples(different)}"
        )
    return sentences


def first_of(sentences: Sequence[str]) -> str:
    """The first sentence and how many more there are."""
    more = f" (and {len(sentences) - 1} more)" if sentences[1:] else ""
    return sentences[0] + more
