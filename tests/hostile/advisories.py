"""The security advisories of Pillow of 2025 and 2026: what each needs, and the version that fixed it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Advisory:
    """One or more advisories with one cause."""

    ids: str
    fixed: str
    fault: str
    files: tuple[str, ...] = ()
    """Files of the corpus in the format that it needs: refused from their first bytes."""
    plugins: tuple[str, ...] = ()
    """Modules of Pillow that it lives in: never loaded."""
    names: tuple[str, ...] = ()
    """Names of Pillow's interface that it needs: never used."""


ADVISORIES = [
    Advisory("CVE-2025-48379", "11.3.0", "saving DDS writes beyond a buffer", ("DDS",), ("DdsImagePlugin",)),
    Advisory("CVE-2026-25990 GHSA-cfh3-3jmp-rvhc", "12.1.1", "tile of a PSD outside it", ("PSD",), ("PsdImagePlugin",)),
    Advisory("CVE-2026-42311", "12.2.0", "tile of a PSD that overflows", ("PSD",), ("PsdImagePlugin",)),
    Advisory("CVE-2026-40192", "12.2.0", "FITS bomb", ("FITS",), ("FitsImagePlugin",)),
    Advisory("CVE-2026-42310", "12.2.0", "PDF trailers in a circle", ("PDF",), ("PdfParser", "PdfImagePlugin")),
    Advisory("CVE-2026-42308", "12.2.0", "advance of a glyph overflows", (), ("ImageFont",)),
    Advisory("CVE-2026-42309", "12.2.0", "nested coordinates", (), ("ImagePath", "ImageDraw"), ("polygon", "line")),
    Advisory("CVE-2026-59199", "12.3.0", "coordinates overflow", names=("crop", "alpha_composite")),
    Advisory("CVE-2026-59205", "12.3.0", "profile applied to an output of another mode", names=("apply",)),
    Advisory("CVE-2026-59197", "12.3.0", "size of a rank filter overflows", (), ("ImageFilter",), ("filter",)),
    Advisory("CVE-2026-54058", "12.3.0", "McIdas row stride", ("McIdas",), ("McIdasImagePlugin",)),
    Advisory("CVE-2026-55379", "12.3.0", "BDF font bomb", (), ("BdfFontFile", "FontFile")),
    Advisory("CVE-2026-54059", "12.3.0", "PCF font bomb", (), ("PcfFontFile", "FontFile")),
    Advisory("CVE-2026-54060", "12.3.0", "font bomb", (), ("FontFile",)),
    Advisory("CVE-2026-55380", "12.3.0", "GD bomb", (), ("GdImageFile",)),
    Advisory("CVE-2026-59200", "12.3.0", "PDF stream bomb", ("PDF",), ("PdfParser",)),
    Advisory("CVE-2026-59204", "12.3.0", "JPEG 2000 tiles", ("JPEG2000",), ("Jpeg2KImagePlugin",)),
    Advisory("CVE-2026-55798", "12.3.0", "command of a viewer", (), ("ImageShow",), ("show",)),
    Advisory("CVE-2026-59198", "12.3.0", "saving TGA leaks memory", ("TGA",), ("TgaImagePlugin",)),
    Advisory("CVE-2026-59203", "12.3.0", "EPS without end", ("EPS",), ("EpsImagePlugin",)),
    Advisory("CVE-2026-96639 GHSA-v9pv-5gc8-w2m6", "13.0.0", "frames of different modes", names=("seek",)),
    Advisory("CVE-2026-112403 GHSA-8g5g-8vmr-9782", "13.0.0", "JPEG lines wider than their tile"),
    Advisory("CVE-2026-112398 GHSA-5x8w-8jj5-q52h", "13.0.0", "the same in FPX", ("FPX",), ("FpxImagePlugin",)),
    Advisory("CVE-2026-96643 GHSA-g4qv-2jxx-769h", "13.0.0", "EXIF signature repeated"),
    Advisory("CVE-2026-96778 GHSA-g7cr-3p24-7wf7", "13.0.0", "comment behind a profile when saving a JPEG"),
    Advisory("CVE-2026-96644 GHSA-9v9v-9qvf-h2hj", "13.0.0", "WMF size", ("WMF", "EMF"), ("WmfImagePlugin",)),
    Advisory("CVE-2026-96637 GHSA-g842-9rc4-69pw", "13.0.0", "SPIDER bomb", (), ("SpiderImagePlugin",)),
    Advisory("CVE-2026-112395 GHSA-462x-pgg6-55fp GHSA-c6hw-5grf-ff96", "13.0.0", "TIFF tiles", ("TIFF",)),
    Advisory("GHSA-q45j-58j2-45rg", "13.0.0", "TIFF strips of JPEG leak memory", ("TIFF",)),
    Advisory("GHSA-p4wg-p73j-c528", "13.0.0", "PDF recursion", ("PDF",), ("PdfParser",)),
    Advisory("CVE-2026-96640 GHSA-mrfp-p49p-3hf2", "13.0.0", "PDF append", ("PDF",), ("PdfImagePlugin",)),
    Advisory("CVE-2026-112393 GHSA-332p-7hrc-92wf GHSA-xcvg-w56q-r89m GHSA-pchr-8j38-3x4p", "13.0.0", "saving TIFF"),
    Advisory("CVE-2026-112902 GHSA-xvh5-g6gv-559v", "13.0.0", "saving TIFF leaks memory"),
    Advisory("GHSA-78g4-xqwv-q3g8", "13.0.0", "OpenJPEG", ("JPEG2000",), ("Jpeg2KImagePlugin",)),
]
