"""Repositories and folders of models, by file name. The contents are placeholders."""

from pathlib import Path

import ddpm_jax as dj

UNET, SCHED = dj.UNet2DModel.files, dj.Scheduler.files
BOTH = (UNET, SCHED)

CONFIG = b'{"_class_name": "UNet2DModel"}'
SCHEDULER = b'{"_class_name": "DDPMScheduler"}'
INDEX = b'{"_class_name": "DDPMPipeline"}'
WEIGHTS = "diffusion_pytorch_model"

NESTED = {
    "README.md": b"read me",
    "model_index.json": INDEX,
    "scheduler/scheduler_config.json": SCHEDULER,
    "unet/config.json": CONFIG,
    f"unet/{WEIGHTS}.bin": b"torch",
    f"unet/{WEIGHTS}.fp16.safetensors": b"half",
    f"unet/{WEIGHTS}.safetensors": b"safe",
    "images/sample.png": b"png",
}
FLAT = {
    "config.json": CONFIG,
    f"{WEIGHTS}.bin": b"torch",
    "model_index.json": INDEX,
    "sample.png": b"png",
    "scheduler_config.json": SCHEDULER,
}
SHARDED = {
    "model_index.json": INDEX,
    "scheduler/scheduler_config.json": SCHEDULER,
    "unet/config.json": CONFIG,
    f"unet/{WEIGHTS}-00001-of-00002.safetensors": b"one",
    f"unet/{WEIGHTS}-00002-of-00002.safetensors": b"two",
    f"unet/{WEIGHTS}.safetensors.index.json": b"{}",
    f"unet/{WEIGHTS}.bin": b"torch",
}
STABLE_DIFFUSION = {
    "model_index.json": b"""{"_class_name": "StableDiffusionPipeline",
        "unet": ["diffusers", "UNet2DConditionModel"], "vae": ["diffusers", "AutoencoderKL"],
        "text_encoder": ["transformers", "CLIPTextModel"],
        "tokenizer": ["transformers", "CLIPTokenizer"],
        "scheduler": ["diffusers", "PNDMScheduler"], "safety_checker": [null, null]}""",
    "unet/config.json": CONFIG,
    f"unet/{WEIGHTS}.fp16.safetensors": b"half",
    f"unet/{WEIGHTS}.safetensors": b"safe",
    "vae/config.json": b'{"vae": 1}',
    f"vae/{WEIGHTS}.bin": b"vae",
    "text_encoder/config.json": b'{"text": 1}',
    "text_encoder/model.safetensors": b"text",
    "text_encoder/pytorch_model.fp16.bin": b"half text",
    "scheduler/scheduler_config.json": SCHEDULER,
    "tokenizer/vocab.json": b"vocab",
    "tokenizer/merges.txt": b"merges",
    "safety_checker/model.safetensors": b"not in the index",
}


def write(folder: Path, files: dict[str, bytes]) -> Path:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder
