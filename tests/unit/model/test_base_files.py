"""What is wrong with the files of a base is said by `check` and by `train` alike, before any weight
is read.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from tests.running import run
from tests.tiny_data import tiny_config
from tests.tiny_models import change, make_base
from transformers import AutoConfig, AutoModelForCausalLM

from sidtune.base.errors import UserError
from sidtune.checks.run import refuse_errors, run_checks
from sidtune.files.weight_files import INDEX, OLD_INDEX, OLD_WEIGHTS, WEIGHTS, load_weights
from sidtune.inputs import Inputs
from sidtune.model import base_files
from sidtune.model.base_files import quantisation_fault, weight_faults
from sidtune.model.load import load_model, load_trained
from sidtune.tasks.config import Config
from sidtune.training.train import train

POINTER = (
    f"version https://git-lfs.github.com/spec/v1\noid sha256:{'ab' * 32}\nsize 988097824\n".encode()
)
OLD_POINTER = POINTER.replace(b"git-lfs.github.com", b"hawser.github.com")


def errors(config: Config) -> list[tuple[str, str]]:
    return [
        (found.message, found.remedy)
        for found in run_checks(Inputs(config))
        if found.severity == "error"
    ]


def in_parts(base: Path, parts: int = 3, old: bool = False) -> list[str]:
    """Spread the weights of a base over files with an index."""
    weights = load_weights(base)
    kind, index = ("bin", OLD_INDEX) if old else ("safetensors", INDEX)
    files = {name: f"part-{number % parts}.{kind}" for number, name in enumerate(sorted(weights))}
    for file in sorted(set(files.values())):
        tensors = {name: weights[name] for name in weights if files[name] == file}
        (
            torch.save(tensors, base / file)
            if old
            else safetensors.torch.save_file(tensors, base / file, {"format": "pt"})
        )
    (base / WEIGHTS).unlink()
    (base / index).write_text(json.dumps({"metadata": {}, "weight_map": files}))
    return sorted(set(files.values()))


def as_old(base: Path) -> Path:
    torch.save(load_weights(base), base / OLD_WEIGHTS)
    (base / WEIGHTS).unlink()
    return base / OLD_WEIGHTS


def cut(path: Path, share: float) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])


def none_there(base: Path) -> None:
    (base / WEIGHTS).unlink()


def other_formats_alone(base: Path) -> None:
    (base / WEIGHTS).rename(base / "consolidated.safetensors")
    (base / "model-q4.gguf").write_bytes(b"GGUF")


def pointer(base: Path) -> None:
    (base / WEIGHTS).write_bytes(POINTER)


def old_pointer(base: Path) -> None:
    as_old(base).write_bytes(OLD_POINTER)


def pointers_in_parts(base: Path) -> None:
    for part in in_parts(base):
        (base / part).write_bytes(POINTER.replace(b"\n", b"\r\n"))


def one_pointer_in_parts(base: Path) -> None:
    (base / in_parts(base)[1]).write_bytes(POINTER)


def index_is_a_pointer(base: Path) -> None:
    in_parts(base)
    (base / INDEX).write_bytes(b"\xef\xbb\xbf" + POINTER)


def truncated(base: Path) -> None:
    cut(base / WEIGHTS, 0.6)


def truncated_in_its_header(base: Path) -> None:
    cut(base / WEIGHTS, 0.001)


def truncated_part(base: Path) -> None:
    cut(base / in_parts(base)[2], 0.9)


def truncated_old(base: Path) -> None:
    cut(as_old(base), 0.9)


def truncated_old_part(base: Path) -> None:
    cut(base / in_parts(base, old=True)[0], 0.5)


def empty(base: Path) -> None:
    (base / WEIGHTS).write_bytes(b"")


def longer(base: Path) -> None:
    with (base / WEIGHTS).open("ab") as file:
        file.write(bytes(64))


def a_web_page(base: Path) -> None:
    (base / WEIGHTS).write_text("<!doctype html><html><body>Sign in</body></html>" * 20)


def an_old_web_page(base: Path) -> None:
    as_old(base).write_text("<!doctype html>")


def part_missing(base: Path) -> None:
    (base / in_parts(base)[1]).unlink()


def old_part_missing(base: Path) -> None:
    (base / in_parts(base, old=True)[1]).unlink()


def part_too_small(base: Path) -> None:
    part = base / in_parts(base)[1]
    kept = dict(list(safetensors.torch.load_file(part).items())[2:])
    safetensors.torch.save_file(kept, part, {"format": "pt"})


def index_is_no_json(base: Path) -> None:
    in_parts(base)
    (base / INDEX).write_text("{")


def a_link_to_nowhere(base: Path) -> None:
    (base / WEIGHTS).unlink()
    (base / WEIGHTS).symlink_to(base / "blobs" / "ab")


FAULTS: list[tuple[Callable[[Path], None], str, str]] = [
    (
        none_there,
        "the folder contains neither model.safetensors nor pytorch_model.bin",
        "from_scratch",
    ),
    (
        other_formats_alone,
        r"it contains consolidated\.safetensors, model-q4\.gguf, which is not supported",
        "from_scratch",
    ),
    (pointer, r"model\.safetensors is a Git LFS pointer, not the file", "git lfs pull"),
    (old_pointer, r"pytorch_model\.bin is a Git LFS pointer", "git lfs pull"),
    (
        pointers_in_parts,
        r"part-0\.safetensors, .*part-2\.safetensors are Git LFS pointers",
        "git lfs pull",
    ),
    (one_pointer_in_parts, r"part-1\.safetensors is a Git LFS pointer", "git lfs pull"),
    (index_is_a_pointer, r"model\.safetensors\.index\.json is a Git LFS pointer", "git lfs pull"),
    (truncated, r"model\.safetensors is truncated: it has [\d,]+ of [\d,]+ bytes", "again"),
    (
        truncated_in_its_header,
        r"model\.safetensors is truncated: it ends within its header",
        "again",
    ),
    (truncated_part, r"part-2\.safetensors is truncated: it has [\d,]+ of [\d,]+ bytes", "again"),
    (truncated_old, r"pytorch_model\.bin is truncated or damaged", "again"),
    (truncated_old_part, r"part-0\.bin is truncated or damaged", "again"),
    (empty, r"model\.safetensors is empty", "again"),
    (longer, r"model\.safetensors is damaged", "again"),
    (a_web_page, r"model\.safetensors is damaged", "again"),
    (an_old_web_page, r"pytorch_model\.bin is damaged: it is not a PyTorch file", "again"),
    (part_missing, r"missing file: part-1\.safetensors", "missing files"),
    (old_part_missing, r"missing file: part-1\.bin", "missing files"),
    (
        part_too_small,
        r"part-1\.safetensors lacks 2 weights that the index lists, such as model\.",
        "again",
    ),
    (index_is_no_json, r"\(model\.safetensors\.index\.json\)", "again"),
    (a_link_to_nowhere, r"missing file: model\.safetensors", "missing files"),
]
EACH = pytest.mark.parametrize(
    ("harm", "message", "hint"), FAULTS, ids=[harm.__name__ for harm, _, _ in FAULTS]
)


@EACH
def test_check_and_train_say_it_alike(
    tmp_path: Path, harm: Callable[[Path], None], message: str, hint: str
) -> None:
    config = tiny_config(tmp_path)
    base = Path(config.model.base)
    harm(base)
    ((found, remedy),) = errors(config)
    assert found.startswith(f"the weights of {base} cannot be loaded: ")
    assert re.search(message, found)
    assert hint in remedy
    assert ("from_scratch" in remedy) == (hint == "from_scratch"), "only where it makes sense"
    with pytest.raises(UserError) as error:
        refuse_errors(Inputs(config))
    assert found in error.value.message
    assert remedy in error.value.message
    inputs = Inputs(config)
    for load in (
        lambda: load_model(config.model, inputs.vocabulary, 0),
        lambda: load_trained(base, torch.device("cpu")),
    ):
        with pytest.raises(UserError) as error:
            load()
        assert error.value.message == found
    scratch = tiny_config(tmp_path, model={"base": str(base), "from_scratch": True})
    assert not errors(scratch), "weights are not needed there"


@EACH
def test_weights_to_start_from_are_looked_at_too(
    tmp_path: Path, harm: Callable[[Path], None], message: str, hint: str
) -> None:
    config = tiny_config(tmp_path)
    start = tmp_path / "start"
    shutil.copytree(config.model.base, start)
    harm(start)
    with pytest.raises(UserError, match=message) as error:
        train(config, resume=str(start))
    assert "from_scratch" not in error.value.hint
    assert hint == "from_scratch" or hint in error.value.hint


def test_train_ends_before_anything_is_encoded(tmp_path: Path) -> None:
    config = tiny_config(tmp_path)
    pointer(Path(config.model.base))
    with pytest.raises(UserError, match="Git LFS pointer"):
        train(config)
    assert not config.output_dir.exists()


@pytest.mark.parametrize("old", [False, True])
@pytest.mark.parametrize("parts", [False, True])
def test_sound_weights_have_no_fault(tmp_path: Path, old: bool, parts: bool) -> None:
    config = tiny_config(tmp_path, training={"max_steps": 1, "batch_size": 16})
    base = Path(config.model.base)
    if parts:
        in_parts(base, old=old)
    elif old:
        as_old(base)
    assert not errors(config)
    run(config)


def test_weights_of_the_oldest_format_have_no_fault(tmp_path: Path) -> None:
    base = make_base(tmp_path / "base")
    torch.save(load_weights(base), base / OLD_WEIGHTS, _use_new_zipfile_serialization=False)
    (base / WEIGHTS).unlink()
    assert not weight_faults(str(base))


def test_what_is_not_used_has_no_fault(tmp_path: Path) -> None:
    """Transformers takes `model.safetensors` where it is there."""
    base = make_base(tmp_path / "base")
    (base / INDEX).write_bytes(POINTER)
    (base / OLD_WEIGHTS).write_bytes(POINTER)
    assert not weight_faults(str(base))


def test_several_faults_are_named_at_once(tmp_path: Path) -> None:
    config = tiny_config(tmp_path)
    base = Path(config.model.base)
    first, second, third = in_parts(base)
    (base / first).unlink()
    (base / second).write_bytes(POINTER)
    cut(base / third, 0.5)
    change(base / "config.json", quantization_config={"quant_method": "awq", "bits": 4})
    found = [message for message, _ in errors(config)]
    assert len(found) == 4
    for message, word in zip(found, ("missing file", "LFS", "truncated", "quantised"), strict=True):
        assert word in message


def test_only_headers_are_read(tmp_path: Path) -> None:
    """A file of 64 GiB, which is a hole behind its header, takes no time."""
    base = make_base(tmp_path / "base")
    header = {"a": {"dtype": "F32", "shape": [2**34], "data_offsets": [0, 2**36]}}
    text = json.dumps(header).encode()
    with (base / WEIGHTS).open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.truncate(8 + len(text) + 2**36)
    assert not weight_faults(str(base))
    with (base / WEIGHTS).open("r+b") as file:
        file.truncate(8 + len(text) + 2**36 - 1)
    (fault,) = weight_faults(str(base))
    assert "is truncated: it has 68,719,4" in fault.message


SMALL = ["config.json", "tokenizer.json", "tokenizer_config.json"]


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize("content", [POINTER, OLD_POINTER], ids=["new", "old"])
@pytest.mark.parametrize("scratch", [False, True])
def test_a_pointer_in_place_of_json(
    tmp_path: Path, name: str, content: bytes, scratch: bool
) -> None:
    config = tiny_config(tmp_path)
    config = tiny_config(tmp_path, model={"base": config.model.base, "from_scratch": scratch})
    base = Path(config.model.base)
    (base / name).write_bytes(content)
    ((found, remedy),) = errors(config)
    assert found == f"{base}: {name} is a Git LFS pointer, not the file itself"
    assert "git lfs pull" in remedy
    with pytest.raises(UserError, match="Git LFS pointer"):
        train(config)


def test_all_pointers_are_named(tmp_path: Path) -> None:
    config = tiny_config(tmp_path)
    for name in (*SMALL, WEIGHTS):
        (Path(config.model.base) / name).write_bytes(POINTER)
    found = [message for message, _ in errors(config)]
    assert len(found) == 2
    assert any(
        "config.json, tokenizer.json, tokenizer_config.json are Git LFS pointers" in each
        for each in found
    )
    assert any("model.safetensors is a Git LFS pointer" in each for each in found)


QUANTISED: list[tuple[dict[str, Any], str]] = [
    ({"quant_method": "bitsandbytes", "load_in_4bit": True}, "bitsandbytes"),
    ({"load_in_8bit": True, "load_in_4bit": False}, "bitsandbytes"),
    ({"quant_method": "gptq", "bits": 4, "group_size": 128}, "gptq"),
    ({"quant_method": "awq", "bits": 4, "version": "gemm"}, "awq"),
    ({"quant_method": "compressed-tensors", "format": "pack-quantized"}, "compressed-tensors"),
    ({"quant_method": "fp8", "activation_scheme": "dynamic"}, "fp8"),
    ({"quant_method": "hqq"}, "hqq"),
    ({"quant_method": "never-heard-of"}, "never-heard-of"),
    ({"bits": 4}, "an unnamed method"),
]


@pytest.mark.parametrize(
    ("settings", "method"), QUANTISED, ids=[f"{n}-{name}" for n, (_, name) in enumerate(QUANTISED)]
)
@pytest.mark.parametrize("tuning", ["full", "frozen"])
def test_a_quantised_base_is_not_trained(
    tmp_path: Path, settings: dict[str, Any], method: str, tuning: str
) -> None:
    config = tiny_config(
        tmp_path, model={"base": str(make_base(tmp_path / "base")), "tuning": tuning}
    )
    base = Path(config.model.base)
    change(base / "config.json", quantization_config=settings)
    ((found, remedy),) = errors(config)
    assert f"is quantised ({method}, by quantization_config in its config.json)" in found
    assert "unquantised version" in remedy
    assert "from_scratch" not in remedy
    with pytest.raises(UserError, match="is quantised"):
        train(config)
    with pytest.raises(UserError, match="is quantised"):
        load_model(config.model, Inputs(config).vocabulary, 0)


def test_from_scratch_takes_the_shape_of_a_quantised_base(tmp_path: Path) -> None:
    """What is saved is not quantised, and does not say so."""
    model = {"base": str(make_base(tmp_path / "base")), "from_scratch": True}
    config = tiny_config(tmp_path, model=model, training={"max_steps": 1, "batch_size": 16})
    change(Path(config.model.base) / "config.json", quantization_config=QUANTISED[0][0])
    assert not errors(config)
    result = run(config)
    assert "quantization_config" not in json.loads((result.folder / "config.json").read_text())
    AutoModelForCausalLM.from_pretrained(result.folder)


@pytest.mark.parametrize(
    ("name", "method"), [("quantize_config.json", "GPTQ"), ("quant_config.json", "AWQ")]
)
def test_older_tools_say_it_in_a_file_of_their_own(tmp_path: Path, name: str, method: str) -> None:
    config = tiny_config(tmp_path)
    (Path(config.model.base) / name).write_text('{"bits": 4}')
    ((found, _),) = errors(config)
    assert f"is quantised ({method}, by {name})" in found


@pytest.mark.parametrize("settings", [None, {}, {"quant_method": "fp8", "dequantize": True}])
def test_what_is_not_quantised_when_loaded(tmp_path: Path, settings: dict[str, Any] | None) -> None:
    config = tiny_config(tmp_path)
    change(Path(config.model.base) / "config.json", quantization_config=settings)
    assert not errors(config)


def test_a_text_model_inside_another_may_be_quantised(tmp_path: Path) -> None:
    header = AutoConfig.for_model("gemma3")
    assert quantisation_fault(str(tmp_path), header) is None
    header.text_config.quantization_config = {"quant_method": "gptq"}
    fault = quantisation_fault(str(tmp_path), header)
    assert fault is not None
    assert "gptq" in fault.message


# --- hub names ---


@pytest.fixture
def cached(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The snapshot of `owner/name` in a cache of its own, without a network."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("transformers.utils.hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    revision = "c" * 40
    repository = tmp_path / "hub" / "models--owner--name"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text(revision)
    return make_base(repository / "snapshots" / revision)


def test_of_a_hub_name_the_cache_is_looked_at(cached: Path) -> None:
    assert not weight_faults("owner/name")
    cut(cached / WEIGHTS, 0.5)
    (fault,) = weight_faults("owner/name")
    assert fault.message.startswith(
        "the weights of owner/name cannot be loaded: model.safetensors is truncated"
    )


def test_what_is_not_in_the_cache_yet_is_no_fault(cached: Path) -> None:
    (cached / in_parts(cached)[0]).unlink()
    assert not weight_faults("owner/name")
    for path in cached.glob("*.safetensors*"):
        path.unlink()
    assert not weight_faults("owner/name")
    assert not weight_faults("owner/other")


def test_the_network_is_not_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []
    ordinary = base_files.cached_file
    monkeypatch.setattr(
        base_files,
        "cached_file",
        lambda *args, **more: asked.append(more) or ordinary(*args, **more),
    )
    assert not weight_faults("owner/other")
    assert all(more["local_files_only"] for more in asked)
    assert asked
