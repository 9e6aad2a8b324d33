"""The catalogue of accelerators."""

import pytest

from draftmark.facts.accelerators import (
    AMD_DEVICE_IDS,
    CATALOGUE,
    Accelerator,
    Product,
    accelerator,
    computes_fp4,
    computes_fp8,
    parse_product,
)


@pytest.mark.parametrize("row", CATALOGUE, ids=lambda row: row.product)
def test_every_row_is_found_by_its_product_and_has_a_source(row: Accelerator) -> None:
    assert accelerator(row.product) is row
    assert accelerator(row.product.upper()) is row
    assert accelerator(row.product.replace("-", " ")) is row
    assert len(row.source) > 10
    assert row.memory_bytes is None or 8 * 1024**3 < row.memory_bytes < 400 * 1024**3
    assert row.link_domain is None or row.link_domain in (1, 2, 4, 8)


def test_every_device_id_is_of_a_product() -> None:
    assert all(accelerator(product) is not None for product in AMD_DEVICE_IDS.values())


@pytest.mark.parametrize(
    ("label", "product"),
    [
        ("A100-SXM4-40GB", "NVIDIA-A100-SXM4-40GB"),
        ("NVIDIA-A100-SXM4-80GB-MIG-1g.10gb", "NVIDIA-A100-SXM4-80GB"),
        ("NVIDIA-A100-SXM4-80GB-MIG-1g.10gb-SHARED", "NVIDIA-A100-SXM4-80GB"),
        ("NVIDIA-L4-SHARED", "NVIDIA-L4"),
        ("NVIDIA A100 80GB PCIe", "NVIDIA-A100-80GB-PCIe"),
        ("GeForce-RTX-3090", "NVIDIA-GeForce-RTX-3090"),
        ("NVIDIA-A10", "NVIDIA-A10"),
        ("NVIDIA-A10G", "NVIDIA-A10G"),
        ("NVIDIA-L40", "NVIDIA-L40"),
        ("NVIDIA-H20-3e", "NVIDIA-H20-3e"),
        ("AMD_Instinct_MI325_OAM", "AMD_Instinct_MI325X_OAM"),
        ("AMD_Instinct_MI300X_VF", "AMD_Instinct_MI300X_OAM"),
        ("AMD_INSTINCT_MI250X_(MCM)_OAM_AC_MBA", "AMD_Instinct_MI250X"),
        ("AMD_Instinct_MI300A", None),
        ("NVIDIA-A100", None),
        ("A", None),
        ("-MIG-", None),
        ("", None),
        (None, None),
    ],
)
def test_products_by_the_names_that_discovery_gives(label: str | None, product: str | None) -> None:
    found = accelerator(label)
    assert (found.product if found is not None else None) == product


@pytest.mark.parametrize(
    ("label", "taken_apart"),
    [
        ("NVIDIA-L4", Product(name="NVIDIA-L4")),
        ("NVIDIA-L4-SHARED", Product(name="NVIDIA-L4", is_shared=True)),
        ("A100-SXM4-40GB-MIG-1g.5gb", Product(name="A100-SXM4-40GB", mig_profile="1g.5gb")),
        ("X-MIG-1g.10gb.me-SHARED", Product(name="X", mig_profile="1g.10gb.me", is_shared=True)),
    ],
)
def test_suffixes_of_products(label: str, taken_apart: Product) -> None:
    assert parse_product(label) == taken_apart


@pytest.mark.parametrize(
    ("architecture", "fp8", "fp4"),
    [
        ("7.0", False, False), ("8.0", False, False), ("8.6", False, False), ("8.9", True, False), ("9.0", True, False),
        ("10.0", True, True), ("12.0", True, True), ("gfx90a", False, False), ("gfx942", True, False), ("gfx950", True, True),
        ("gfx1100", None, None), ("", None, None), (None, None, None), ("9", None, None),
    ],
)  # fmt: skip
def test_number_formats_of_architectures(architecture: str | None, fp8: bool | None, fp4: bool | None) -> None:
    assert computes_fp8(architecture) is fp8
    assert computes_fp4(architecture) is fp4
