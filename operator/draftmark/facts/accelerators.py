"""Accelerators: the labels that name them, and what is known of each product.

A node's own labels come first, because a driver has measured what it says; the catalogue is for clusters without those
labels, for services that name a product before there is a node of it, and for what no label tells (the link between the
GPUs of a node). Memory is what the driver reports and not the number on the box: an "80 GB" H100 has 81,559 MiB, an A100
of the same name 81,920. What a process gets is less again by the driver's own reserve: CUDA gives 178.35 GiB of a B200's
183,359 MiB (pytorch/ao#4002), and 95.33 GiB of an H20's 97,871.

Every row has its source. A product without one is not here, and is then unknown rather than guessed.
"""

import re
from dataclasses import dataclass
from typing import Final, Literal

__all__ = [
    "AMD_DEVICE_IDS",
    "CATALOGUE",
    "DEFAULT_RESOURCE",
    "PRODUCT_LABELS",
    "Accelerator",
    "Product",
    "Vendor",
    "accelerator",
    "computes_fp4",
    "computes_fp8",
    "parse_product",
    "product_label",
]

#: Resource that a GPU is asked for by when a service names none.
DEFAULT_RESOURCE: Final = "nvidia.com/gpu"

#: Node label with the product, by the domain of the resource. Sources: NVIDIA GPU Feature Discovery README; AMD
#: node labeller README (`amd.com/gpu.product-name`).
PRODUCT_LABELS: Final = {"nvidia.com": "nvidia.com/gpu.product", "amd.com": "amd.com/gpu.product-name"}

Vendor = Literal["nvidia", "amd", "intel"]

_MIB: Final = 1024**2
_GIB: Final = 1024**3


def product_label(resource_name: str) -> str | None:
    """The node label that holds the product of this resource, or None when it is not known."""
    return PRODUCT_LABELS.get(resource_name.partition("/")[0])


@dataclass(frozen=True, slots=True, kw_only=True)
class Accelerator:
    """One product, as it can be bought."""

    #: As the vendor's own discovery names it in a node label.
    product: str
    vendor: Vendor
    #: Of one device as pods ask for it; None: no source tells it.
    memory_bytes: int | None
    #: `driver`: what the driver reports. `nominal`: the data sheet's number, which a driver may undercut a little.
    memory_is: Literal["driver", "nominal"] = "driver"
    #: CUDA compute capability ("9.0"), LLVM target ("gfx942"); None for other kinds.
    architecture: str | None
    #: Most devices of one node that reach each other over NVLink or xGMI; 1: over PCIe only; None: not known. A node with
    #: fewer devices has a smaller domain, and a link that is not plugged in is not seen here.
    link_domain: int | None
    source: str

    @property
    def fp8(self) -> bool | None:
        """Whether it multiplies FP8 matrices in hardware; None: not known."""
        return computes_fp8(self.architecture)

    @property
    def fp4(self) -> bool | None:
        """Whether it multiplies FP4 matrices in hardware; None: not known."""
        return computes_fp4(self.architecture)


#: First compute capability with FP8 matrix units; older ones read FP8 weights and compute in 16 bit. Source: vLLM
#: documentation, features/quantization, FP8 W8A8: "compute capability >= 8.9 (Ada Lovelace, Hopper)".
_FP8_FROM: Final = (8, 9)
#: First one with FP4 matrix units. Source: TransformerEngine and vLLM refuse NVFP4 below 10.0 (Blackwell).
_FP4_FROM: Final = (10, 0)
#: LLVM target: FP8, FP4 in hardware. Source: ROCm documentation, "Data types and precision support": FP8 since CDNA 3, FP4
#: since CDNA 4; the architecture of each target from "AMD GPU specifications".
_AMD_TYPES: Final = {
    "gfx908": (False, False),
    "gfx90a": (False, False),
    "gfx942": (True, False),
    "gfx950": (True, True),
}


def _capability(architecture: str | None) -> tuple[int, int] | None:
    match = re.fullmatch(r"([0-9]{1,3})\.([0-9]{1,2})", architecture or "")
    return (int(match[1]), int(match[2])) if match else None


def computes_fp8(architecture: str | None) -> bool | None:
    """Whether an architecture multiplies FP8 matrices in hardware; None: not known."""
    capability = _capability(architecture)
    if capability is not None:
        return capability >= _FP8_FROM
    return _AMD_TYPES[architecture][0] if architecture in _AMD_TYPES else None


def computes_fp4(architecture: str | None) -> bool | None:
    """Whether an architecture multiplies FP4 matrices in hardware; None: not known."""
    capability = _capability(architecture)
    if capability is not None:
        return capability >= _FP4_FROM
    return _AMD_TYPES[architecture][1] if architecture in _AMD_TYPES else None


#: Where a compute capability is from. Source of all of them: developer.nvidia.com/cuda-gpus and /cuda-legacy-gpus; for A10G,
#: A800 and H20, which are not listed there, the chip is that of A10, A100 and H100.
def _nvidia(product: str, mib: int, capability: str, link_domain: int, source: str) -> Accelerator:
    return Accelerator(
        product=product,
        vendor="nvidia",
        memory_bytes=mib * _MIB,
        architecture=capability,
        link_domain=link_domain,
        source=source,
    )


def _printed(text: str) -> str:
    """A line that `nvidia-smi --query-gpu=name,memory.total --format=csv` prints, found in several public repositories with
    an exact search for it (2026-11-26)."""
    return f"nvidia-smi, printed in public repositories: '{text}'"


_MODAL: Final = "modal-labs/modal-client#2797: memory that nvidia-smi reports per GPU type"
_ROCM: Final = "ROCm documentation, AMD GPU specifications: VRAM and LLVM target"

#: The link domains. SXM boards of eight (HGX, DGX) have a switch: `nvidia-smi topo -m` shows NV18 between all eight in
#: NVIDIA/nccl#1264 (H100), vllm-project/vllm#13582 (H200), vllm-project/vllm#16336 and unslothai/unsloth#3872 (B200), NV12 in
#: NVIDIA/nccl#1505 (A100), NV8 in sgl-project/sglang#2889 (H800); boards of four have fewer devices (NVIDIA/nccl#1617). GB200:
#: NV18 between the four GPUs of a tray (sgl-project/sglang#11208); the domain of 72 is many nodes. V100 SXM2: a cube of eight
#: with the diagonals of two faces (NVIDIA's text on the DGX-1, iitr.ac.in/dgx): all connected are the four of such a face
#: only. H100 NVL: a bridge for two cards (aiminingco.com/gpu/h100-nvl/specs). Bridges of other PCIe cards are an option that
#: nobody can see from here: 1.
CATALOGUE: Final[tuple[Accelerator, ...]] = (
    # Blackwell
    _nvidia("NVIDIA-GB200", 189471, "10.0", 4, _printed("NVIDIA GB200, 189471 MiB")),
    _nvidia("NVIDIA-B300-SXM6-AC", 275040, "10.3", 8, _printed("NVIDIA B300 SXM6 AC, 275040 MiB")),
    _nvidia("NVIDIA-B200", 183359, "10.0", 8, "NVIDIA/TensorRT-LLM#10278: nvidia-smi"),
    _nvidia(
        "NVIDIA-RTX-PRO-6000-Blackwell-Server-Edition",
        97887,
        "12.0",
        1,
        _printed("NVIDIA RTX PRO 6000 Blackwell Server Edition, 97887 MiB"),
    ),
    _nvidia(
        "NVIDIA-RTX-PRO-6000-Blackwell-Max-Q-Workstation-Edition",
        97887,
        "12.0",
        1,
        "akash-network/provider-configs#79: nvidia-smi",
    ),
    _nvidia("NVIDIA-GeForce-RTX-5090", 32607, "12.0", 1, "noonghunna/club-3090#1229: nvidia-smi"),
    # Hopper
    _nvidia("NVIDIA-GH200-480GB", 97871, "9.0", 1, _printed("NVIDIA GH200 480GB, 97871 MiB")),
    _nvidia("NVIDIA-H200", 143771, "9.0", 8, "sgl-project/sglang#3196: nvidia-smi"),
    _nvidia("NVIDIA-H100-80GB-HBM3", 81559, "9.0", 8, "NVIDIA/k8s-device-plugin#1501: label nvidia.com/gpu.memory"),
    _nvidia("NVIDIA-H100-PCIe", 81559, "9.0", 1, _printed("NVIDIA H100 PCIe, 81559 MiB")),
    _nvidia("NVIDIA-H100-NVL", 95830, "9.0", 2, _printed("NVIDIA H100 NVL, 95830 MiB")),
    _nvidia("NVIDIA-H20", 97871, "9.0", 8, _printed("NVIDIA H20, 97871 MiB")),
    _nvidia("NVIDIA-H20-3e", 143771, "9.0", 8, "sgl-project/sglang#6418: nvidia-smi"),
    # Ada Lovelace
    _nvidia("NVIDIA-L40S", 46068, "8.9", 1, "akash-network/provider-configs#99: nvidia-smi"),
    _nvidia("NVIDIA-L40", 46068, "8.9", 1, _printed("NVIDIA L40, 46068 MiB")),
    _nvidia("NVIDIA-L4", 23034, "8.9", 1, _MODAL),
    _nvidia("NVIDIA-RTX-6000-Ada-Generation", 49140, "8.9", 1, _printed("NVIDIA RTX 6000 Ada Generation, 49140 MiB")),
    _nvidia("NVIDIA-GeForce-RTX-4090", 24564, "8.9", 1, "vllm-project/vllm#7553: nvidia-smi"),
    # Ampere
    _nvidia("NVIDIA-A100-SXM4-80GB", 81920, "8.0", 8, _MODAL),
    _nvidia("NVIDIA-A100-SXM4-40GB", 40960, "8.0", 8, "bottlerocket-os/bottlerocket-core-kit#834: nvidia-smi"),
    _nvidia(
        "NVIDIA-A100-80GB-PCIe",
        81920,
        "8.0",
        1,
        "kubernetes-sigs/dra-driver-nvidia-gpu#719: capacity of the ResourceSlice, 80Gi",
    ),
    _nvidia("NVIDIA-A100-PCIE-40GB", 40536, "8.0", 1, "Mellanox/network-operator#211: label nvidia.com/gpu.memory"),
    _nvidia("NVIDIA-A40", 46068, "8.6", 1, "NVIDIA/gpu-operator#1982: nvidia-smi"),
    _nvidia("NVIDIA-A30", 24576, "8.0", 1, "NVIDIA/gpu-operator#442: label nvidia.com/gpu.memory"),
    _nvidia("NVIDIA-A10", 23028, "8.6", 1, _MODAL),
    _nvidia("NVIDIA-A10G", 23028, "8.6", 1, _printed("NVIDIA A10G, 23028 MiB")),
    _nvidia("NVIDIA-RTX-A6000", 49140, "8.6", 1, _printed("NVIDIA RTX A6000, 49140 MiB")),
    _nvidia("NVIDIA-RTX-A5000", 24564, "8.6", 1, "akash-network/provider-configs#83: nvidia-smi"),
    _nvidia("NVIDIA-GeForce-RTX-3090", 24576, "8.6", 1, "noonghunna/club-3090#390: nvidia-smi"),
    # Turing and Volta
    _nvidia("Tesla-T4", 15360, "7.5", 1, _MODAL),
    _nvidia("Quadro-RTX-6000", 24576, "7.5", 1, "akash-network/provider-configs#81: nvidia-smi"),
    _nvidia("Tesla-V100-SXM2-32GB", 32768, "7.0", 4, _printed("Tesla V100-SXM2-32GB, 32768 MiB")),
    _nvidia("Tesla-V100-SXM2-16GB", 16384, "7.0", 4, _printed("Tesla V100-SXM2-16GB, 16384 MiB")),
    # AMD Instinct. A device of an MI250X is one of its two dies, with half of the 128 GiB: four cards are eight devices
    # (Hugging Face Optimum documentation, AMD Instinct GPU connectivity). Links: `rocm-smi` shows one hop of equal weight
    # between all eight MI355X in vllm-project/vllm#40008. Of MI300X, MI325X and MI350X no such output was found; they are
    # taken for alike, being modules of the same boards of eight. Between MI250X the weights differ
    # (vllm-project/vllm#40771), and of MI210 nothing is known.
    Accelerator(
        product="AMD_Instinct_MI355X_OAM",
        vendor="amd",
        memory_bytes=288 * _GIB,
        memory_is="nominal",
        architecture="gfx950",
        link_domain=8,
        source=_ROCM,
    ),
    Accelerator(
        product="AMD_Instinct_MI350X_OAM",
        vendor="amd",
        memory_bytes=288 * _GIB,
        memory_is="nominal",
        architecture="gfx950",
        link_domain=8,
        source=_ROCM,
    ),
    Accelerator(
        product="AMD_Instinct_MI325X_OAM",
        vendor="amd",
        memory_bytes=256 * _GIB,
        memory_is="nominal",
        architecture="gfx942",
        link_domain=8,
        source=_ROCM,
    ),
    Accelerator(
        product="AMD_Instinct_MI300X_OAM",
        vendor="amd",
        memory_bytes=2 * 98296 * _MIB,
        architecture="gfx942",
        link_domain=8,
        source="ROCm/k8s-gpu-dra-driver#21: capacity of the ResourceSlice, 98296Mi for each half of a GPU",
    ),
    Accelerator(
        product="AMD_Instinct_MI250X",
        vendor="amd",
        memory_bytes=64 * _GIB,
        memory_is="nominal",
        architecture="gfx90a",
        link_domain=None,
        source=_ROCM,
    ),
    Accelerator(
        product="AMD_Instinct_MI210",
        vendor="amd",
        memory_bytes=64 * _GIB,
        memory_is="nominal",
        architecture="gfx90a",
        link_domain=None,
        source=_ROCM,
    ),
    # Intel Gaudi, as Gaudi Feature Discovery's habana.ai/device.type has it.
    Accelerator(
        product="GAUDI3",
        vendor="intel",
        memory_bytes=128 * 10**9,
        memory_is="nominal",
        architecture=None,
        link_domain=None,
        source="Hugging Face Transformers documentation, Intel Gaudi: 128GB on Gaudi 3",
    ),
    Accelerator(
        product="GAUDI2",
        vendor="intel",
        memory_bytes=96 * 10**9,
        memory_is="nominal",
        architecture=None,
        link_domain=None,
        source="Hugging Face Transformers documentation, Intel Gaudi: 96GB on Gaudi 2",
    ),
)

#: PCI device ids for nodes whose labeller knows no product name, as in virtual machines. Sources: ROCm/gpu-operator#555
#: (75a3), ROCm/legacy-rocm-build#4750 (74a1), ROCm/gpu-operator#266 (74b5, a virtual function of an MI300X).
AMD_DEVICE_IDS: Final = {
    "75a3": "AMD_Instinct_MI355X_OAM",
    "74a1": "AMD_Instinct_MI300X_OAM",
    "74b5": "AMD_Instinct_MI300X_OAM",
}

#: What is before a product's own name, and differs by the driver's age: GPU Feature Discovery gave `A100-SXM4-40GB` and
#: `NVIDIA-A100-SXM4-40GB` for one card. Source: the README, and Mellanox/network-operator#211.
_BRANDS: Final = re.compile(r"(?:(?:nvidia|tesla|quadro|geforce|amd|instinct|radeon)-)+")
_INSTINCT: Final = re.compile(r"(?:^|-)mi([0-9]{2,3})([ax]?)(?=$|-)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Product:
    """A product label, taken apart."""

    #: Without what the plugin's configuration has added.
    name: str
    #: Time-sliced or by MPS: several pods have the same GPU. Source: GPU Feature Discovery, resource labeler.
    is_shared: bool = False
    #: Such as 1g.10gb: a device is a part of a GPU.
    mig_profile: str | None = None


def parse_product(label: str) -> Product:
    """A product label such as NVIDIA-A100-SXM4-80GB-MIG-1g.10gb-SHARED, taken apart."""
    name, _, profile = label.removesuffix("-SHARED").partition("-MIG-")
    return Product(name=name, is_shared=label.endswith("-SHARED"), mig_profile=profile or None)


def accelerator(product: str | None) -> Accelerator | None:
    """The catalogue's row of a product, by its label with or without suffixes and brand, or by the name that the driver
    gives; None: not in the catalogue."""
    return _BY_NAME.get(_plain(parse_product(product).name)) if product else None


def _plain(name: str) -> str:
    """A name without brand, case and the choice of separator."""
    text = re.sub(r"[\s_-]+", "-", name.strip().lower())
    plain = text[brand.end() :] if (brand := _BRANDS.match(text)) else text
    # The labeller has the board's full name: AMD_INSTINCT_MI250X_(MCM)_OAM_AC_MBA, AMD_Instinct_MI300X_VF.
    if "instinct" in text and (match := _INSTINCT.search(plain)):
        return f"mi{match[1]}{match[2]}"
    return plain


_BY_NAME: Final = {_plain(row.product): row for row in CATALOGUE} | {
    # AMD_Instinct_MI325_OAM is what a labeller was seen to write.
    "mi325": next(row for row in CATALOGUE if "MI325X" in row.product)
}
