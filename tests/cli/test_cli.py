"""The commands, run as a user runs them, beside the library they stand on."""

import json
import re
import subprocess
import sys
import warnings
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from typer.testing import CliRunner

from persimmon_lab import PersimmonConfig, PersimmonForCausalLM, PersimmonTokenizer, load_mini
from persimmon_lab.checkpoints import shards
from persimmon_lab.cli import app, chat, doctor, generate, inspect, train
from persimmon_lab.cli.options import choose_device, decoding_settings
from persimmon_lab.fitting import formats
from persimmon_lab.mini import MINI

VOCABULARY = Path(__file__).parents[1] / "fixtures" / "tokenizer" / "tokenizer.model"
CONTEXT = 128
PROMPT = "human: Hey, what should I eat?"


@pytest.fixture(scope="module")
def tokenizer():
    return PersimmonTokenizer(VOCABULARY)


@pytest.fixture(scope="module")
def model(tokenizer):
    ids = {name: getattr(tokenizer, name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
    config = PersimmonConfig.tiny(
        vocab_size=len(tokenizer), initializer_range=0.2, max_position_embeddings=CONTEXT, **ids
    )
    return PersimmonForCausalLM(config, torch.Generator().manual_seed(0)).eval()


@pytest.fixture(scope="module")
def checkpoint(model, tokenizer, tmp_path_factory):
    folder = tmp_path_factory.mktemp("checkpoint")
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


@pytest.fixture
def run():
    """run("generate", "text", input="") -> its exit_code, stdout and stderr."""
    return lambda *arguments, **options: CliRunner().invoke(app, [str(argument) for argument in arguments], **options)


def written(model, tokenizer, prompt_ids, **settings) -> str:
    """What the model writes after a prompt, through `generate` and by decoding everything at once."""
    ids = model.generate(prompt_ids, **settings)[0]
    text = tokenizer.decode(ids, skip_special_tokens=True)
    return shown(text[len(tokenizer.decode(prompt_ids[0], skip_special_tokens=True)) :])


def shown(text: str) -> str:
    """Without the newline at the end, and without the unfinished characters before it, which a stream leaves out."""
    return text.removesuffix("\n").rstrip("\ufffd")


# generate


@pytest.mark.parametrize(
    ("options", "settings"),
    [
        ([], {}),
        (["--temperature", 0.7, "--seed", 3], {"do_sample": True, "temperature": 0.7, "seed": 3}),
        (["--top-k", 5, "--seed", 3], {"do_sample": True, "top_k": 5, "seed": 3}),
        (["--repetition-penalty", 2], {"repetition_penalty": 2.0}),
        (["--dtype", "float32", "--device", "cpu", "--temperature", 0], {}),
    ],
    ids=str,
)
def test_generate_writes_what_the_model_generates(run, checkpoint, model, tokenizer, options, settings):
    result = run("generate", PROMPT, "-m", checkpoint, "--max-new-tokens", 20, *options)
    prompt_ids = tokenizer(PROMPT, return_tensors="pt").input_ids
    expected = written(model, tokenizer, prompt_ids, max_new_tokens=20, **settings)
    assert (result.exit_code, shown(result.stdout), result.stderr) == (0, expected, "")


def test_the_shipped_model_is_the_default(run):
    prompt = "Shall I compare thee"
    mini, pieces = load_mini("auto")
    expected = written(mini, pieces, pieces(prompt, return_tensors="pt").input_ids, max_new_tokens=12)
    assert shown(run("generate", prompt, "--max-new-tokens", 12).stdout) == expected


def test_generate_reads_the_standard_input(run, checkpoint):
    piped = run("generate", "-", "-m", checkpoint, "--max-new-tokens", 9, input=PROMPT + "\n")
    assert piped.stdout == run("generate", PROMPT, "-m", checkpoint, "--max-new-tokens", 9).stdout


def test_generate_in_the_chat_format(run, checkpoint, model, tokenizer):
    result = run("generate", "Hey?", "--chat", "-m", checkpoint, "--max-new-tokens", 9)
    prompt_ids = tokenizer("human: Hey?\n\nadept:", return_tensors="pt").input_ids
    assert shown(result.stdout) == written(model, tokenizer, prompt_ids, max_new_tokens=9).lstrip()


def test_answers_end_where_the_human_s_next_turn_would_begin(run, checkpoint, monkeypatch):
    asked = []

    def stream(model, tokenizer, prompt_ids, **settings):
        asked.append(settings["stop_strings"])
        return iter(())

    for command in (generate, chat):
        monkeypatch.setattr(command, "stream", stream)
    run("generate", "Hey?", "--chat", "--stop", "END", "-m", checkpoint)
    run("chat", "-m", checkpoint, input="Hey?\n")
    assert asked == [["END", "\n\nhuman:"], "\n\nhuman:"]


def test_generate_ends_before_a_stop_string(run, checkpoint):
    whole = run("generate", PROMPT, "-m", checkpoint, "--max-new-tokens", 20).stdout
    stop = whole[8:11]
    result = run("generate", PROMPT, "-m", checkpoint, "--max-new-tokens", 20, "--stop", "never", "--stop", stop)
    assert result.stdout == whole[: whole.index(stop)] + "\n"


def test_generate_fills_the_context_by_default(run, checkpoint, model, tokenizer):
    result = run("generate", PROMPT, "-m", checkpoint)
    prompt_ids = tokenizer(PROMPT, return_tensors="pt").input_ids
    assert shown(result.stdout) == written(model, tokenizer, prompt_ids, max_length=CONTEXT)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["-m", "there/is/none"], "neither a folder nor a hub id"),
        (["--max-new-tokens", 2000], "2000 new ones"),
        (["--dtype", "float17"], "float17"),
        (["--device", "warp"], "warp"),
        (["--repetition-penalty", 0], "repetition_penalty=0"),
    ],
)
def test_mistakes_are_one_line(run, checkpoint, arguments, message):
    result = run("generate", PROMPT, "-m", checkpoint, *arguments)
    assert result.exit_code == 1
    assert result.stdout == ""
    assert result.stderr.startswith("persimmon-lab: ")
    assert message in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize(
    "arguments",
    [["generate"], ["generate", "x", "--top-p", 3], ["generate", "x", "--colour"], ["dance"], ["train", "maxi"]],
)
def test_command_lines_without_sense_exit_with_2(run, arguments):
    assert run(*arguments).exit_code == 2


def test_a_mistake_in_a_fresh_process():
    """As above, with nothing imported by other tests; and the commands start without what only notebooks need."""
    program = (
        "import sys; from persimmon_lab.cli import app\n"
        "heavy = [name for name in ('matplotlib', 'transformers', 'ipywidgets', 'IPython') if name in sys.modules]\n"
        "assert not heavy, heavy\n"
        "app(['generate', 'x', '-m', 'there/is/none'])"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (result.returncode, result.stdout, result.stderr.count("\n")) == (1, "", 1)
    assert result.stderr.startswith("persimmon-lab: 'there/is/none' is neither a folder nor a hub id")


@pytest.mark.parametrize(
    ("given", "settings"),
    [
        ({}, {}),
        ({"seed": 1}, {"seed": 1, "do_sample": True}),
        ({"temperature": 0.0, "top_k": 3, "seed": 1}, {"do_sample": False}),
        ({"top_p": 0.5, "repetition_penalty": 1.1}, {"top_p": 0.5, "do_sample": True, "repetition_penalty": 1.1}),
        ({"repetition_penalty": 1.1}, {"repetition_penalty": 1.1}),
    ],
)
def test_options_to_settings(given, settings):
    names = ("temperature", "top_k", "top_p", "min_p", "repetition_penalty", "seed")
    assert decoding_settings(**{name: given.get(name) for name in names}) == settings


def test_a_device_that_is_not_there(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    assert choose_device("auto") == torch.device("cpu")
    with pytest.raises(ValueError, match="'cuda:1' was asked for.*no CUDA device"):
        choose_device("cuda:1")


# chat


@pytest.fixture
def prompts(monkeypatch, tokenizer):
    """The prompts that a chat asks the model, as text; its answers are " one", " two", ... and "!" interrupts it."""
    seen = []
    answers = iter([" one", " two", " three", " four", " five"])

    def stream(model, tokenizer, prompt_ids, **settings):
        seen.append(tokenizer.decode(prompt_ids[0], skip_special_tokens=True))
        yield SimpleNamespace(text=next(answers))
        if "!" in seen[-1].rsplit("human:", 1)[-1]:
            raise KeyboardInterrupt
        yield SimpleNamespace(text=".")

    monkeypatch.setattr(chat, "stream", stream)
    return seen


def test_chat_remembers_its_turns_until_reset(run, checkpoint, prompts):
    result = run("chat", "-m", checkpoint, input="Hi\n\nAnd?\n/reset\nHi again\n/quit\nunheard\n")
    assert (result.exit_code, result.stdout) == (0, "one.\ntwo.\nthree.\n")
    assert prompts == [
        "human: Hi\n\nadept:",
        "human: Hi\n\nadept: one.\n\nhuman: And?\n\nadept:",
        "human: Hi again\n\nadept:",
    ]


def test_chat_ends_with_its_input_and_knows_its_commands(run, checkpoint, prompts):
    result = run("chat", "-m", checkpoint, input="/dance\nHi")
    assert (result.exit_code, result.stdout) == (0, "one.\n")
    assert "/dance is no command" in result.stderr


def test_ctrl_c_ends_the_answer_and_not_the_program(run, checkpoint, prompts):
    result = run("chat", "-m", checkpoint, input="Stop!\nAnd?\n")
    assert (result.exit_code, result.stdout) == (0, "one\ntwo.\n")
    assert prompts[1] == "human: Stop!\n\nadept: one\n\nhuman: And?\n\nadept:"


def test_chat_forgets_the_oldest_exchanges_first(model, tokenizer, capsys):
    def turns(count):
        roles = ["human", "adept"] * count
        return [
            {"role": role, "content": f"turn {index} of the talk"} for index, role in enumerate(roles[: 2 * count - 1])
        ]

    lengths = {count: len(tokenizer.apply_chat_template(turns(count))) for count in range(1, 5)}
    assert lengths[4] < CONTEXT - 10
    whole, ids = chat.fit_conversation(model, tokenizer, turns(4), CONTEXT - lengths[4])
    assert (whole, ids.shape[1]) == (turns(4), lengths[4])
    kept, ids = chat.fit_conversation(model, tokenizer, turns(4), CONTEXT - lengths[4] + 1)
    assert kept == turns(4)[2:]
    assert ids[0].tolist() == tokenizer.apply_chat_template(turns(4)[2:])
    assert "oldest 1 exchange" in capsys.readouterr().err
    with pytest.raises(ValueError, match="room for 1$"):
        chat.fit_conversation(model, tokenizer, turns(4), CONTEXT - 1)


def test_a_question_that_is_too_long_is_refused_and_the_chat_goes_on(run, checkpoint, prompts):
    result = run("chat", "-m", checkpoint, input="word " * 200 + "\nHi\n")
    assert (result.exit_code, result.stdout) == (0, "one.\n")
    assert "the context has room for 96" in result.stderr
    assert prompts == ["human: Hi\n\nadept:"]


def test_a_chat_with_the_model_itself(run, checkpoint, model, tokenizer):
    """Greedy: the answers are what `generate` gives; sampled: the seed repeats the conversation, answers differ."""
    result = run("chat", "-m", checkpoint, "--max-new-tokens", 8, "--temperature", 0, input="Hi\n")
    prompt_ids = tokenizer("human: Hi\n\nadept:", return_tensors="pt").input_ids
    assert shown(result.stdout) == written(model, tokenizer, prompt_ids, max_new_tokens=8).lstrip()
    sampled = [
        run("chat", "-m", checkpoint, "--max-new-tokens", 8, "--seed", 1, input="Hi\n/reset\nHi\n") for _ in "ab"
    ]
    assert sampled[0].stdout == sampled[1].stdout
    first, second = sampled[0].stdout.splitlines()
    assert first != second


# inspect


def test_inspect_counts_what_is_there(run, checkpoint, model, monkeypatch):
    def read(*arguments, **options):
        raise AssertionError("inspect read a weight")

    monkeypatch.setattr(shards.WeightFile, "read", read)
    report = json.loads(run("inspect", checkpoint, "--json", "--context", 50, "--batch", 3).stdout)
    parameters = model.num_parameters()
    assert (report["parameters"], report["expected_parameters"]) == (parameters, parameters)
    assert {t["name"]: t["shape"] for t in report["tensors"]} == {
        name: list(tensor.shape) for name, tensor in model.state_dict().items()
    }
    assert sum(tensor["bytes"] for tensor in report["tensors"]) == 4 * parameters
    cache = 2 * 2 * 64 * 50 * 3  # keys and values, layers, hidden, positions, rows
    activations = 2 * 17 * 64 * 50 * 3  # 5 times the hidden size and 3 times the MLP's a position
    assert report["memory"]["bfloat16"] == {
        "weights": 2 * parameters,
        "cache": 2 * cache,
        "total": 2 * parameters + 2 * cache,
        "activations": activations,
        "peak": 2 * parameters + 2 * cache + activations,
    }
    assert report["memory"]["float32"]["total"] == 4 * parameters + 4 * cache
    assert report["config"]["hidden_size"] == 64
    assert report["dtypes"] == ["float32"]


def test_inspect_prints_tables(run, checkpoint, model):
    output = run("inspect", checkpoint).stdout
    assert f"{model.num_parameters():,} parameters, float32" in output
    assert "Memory for 1 x 128 positions" in output
    assert "model.layers.*.self_attn.query_key_value.weight" in output
    assert "2 x 49.2 kB" in output
    assert "model.layers.1.self_attn.query_key_value.weight" in run("inspect", checkpoint, "--all").stdout


def test_inspect_a_configuration_without_weights(run, tmp_path):
    PersimmonConfig.persimmon_8b().save_pretrained(tmp_path)
    report = json.loads(run("inspect", tmp_path, "--json").stdout)
    assert (report["parameters"], report["tensors"]) == (9_397_175_296, [])
    assert report["memory"]["bfloat16"] == {
        "weights": 18_794_350_592,
        "cache": 9_663_676_416,
        "total": 28_458_027_008,
        "activations": 2_281_701_376,
        "peak": 30_739_728_384,
    }
    assert "no weights" in run("inspect", tmp_path).stdout


def test_inspect_shows_names_as_they_are(run, tmp_path):
    config = PersimmonConfig.tiny()
    config.extra["[red]note"] = "[bold]x"
    config.save_pretrained(tmp_path)
    assert "[red]note" in run("inspect", tmp_path).stdout


def test_inspect_says_what_it_cannot_read(run, tmp_path):
    assert "no config.json" in run("inspect", tmp_path).stderr
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    result = run("inspect", tmp_path)
    assert result.exit_code == 1
    assert "llama" in result.stderr


# doctor


@pytest.fixture
def mini(monkeypatch, model, tokenizer):
    monkeypatch.setattr(doctor, "load_mini", lambda: (model, tokenizer))


def test_doctor_is_content_with_a_machine_that_works(run, mini):
    result = run("doctor")
    assert result.exit_code == 0, result.stdout
    assert f"fine     torch                    {torch.__version__}" in result.stdout
    assert "tokens a second" in result.stdout
    assert "broken" not in result.stdout


def test_doctor_fails_without_the_shipped_model(run, monkeypatch):
    def load():
        raise ValueError("model.safetensors is not whole")

    monkeypatch.setattr(doctor, "load_mini", load)
    result = run("doctor")
    assert result.exit_code == 1
    assert "broken   persimmon-mini           model.safetensors is not whole" in result.stdout


def test_doctor_notices_what_is_wrong_and_what_is_missing(run, mini, monkeypatch):
    monkeypatch.setattr(doctor, "installed", lambda name: None if name in ("einops", "voila") else "1.0")
    result = run("doctor")
    assert result.exit_code == 1
    assert "broken   einops                   pip install einops" in result.stdout
    assert "missing  voila                    pip install 'persimmon-lab[web]'" in result.stdout

    monkeypatch.setattr(doctor, "installed", lambda name: "1.0")
    monkeypatch.setattr(doctor, "try_product", lambda device, dtype: (0.5 if dtype == torch.bfloat16 else 0.0, 1e9))
    result = run("doctor")
    assert result.exit_code == 1
    assert "broken   bfloat16 on cpu" in result.stdout
    assert "fine     float32 on cpu" in result.stdout


def test_what_will_fit_by_hand():
    """9,397,175,296 parameters; 589,824 bytes of bfloat16 cache and 139,264 of activations a position. Of these
    parameters 9,395,240,960 stand in 1,851,392 rows: a byte each and two a row in int8, five of eight bits in int4."""
    table = doctor.room_table({"cpu": 25_000_000_000})
    columns = [list(column.cells) for column in table.columns]
    assert columns == [
        ["float32", "bfloat16", "int8", "int4"],
        ["40.6 GB", "20.3 GB", "10.9 GB", "7.37 GB"],
        ["15.6 GB short", "fits", "fits", "fits"],
        ["61.5 GB", "30.7 GB", "21.3 GB", "17.8 GB"],
        ["36.5 GB short", "5.74 GB short", "fits", "fits"],
    ]


def test_one_model_by_format(run, monkeypatch):
    """The stream is 40 GB a second in each format, which differ in the bytes that a token reads."""
    monkeypatch.setattr(formats, "measure_bandwidth", lambda dtype, device, how, **sizes: 40e9)
    table = doctor.outlook_table("8b", "cpu", 25_000_000_000)
    columns = {column.header: list(column.cells) for column in table.columns}
    assert columns["format"] == ["float32", "bfloat16", "int8", "int4"]
    assert columns["weights"] == ["37.6 GB", "18.8 GB", "9.4 GB", "5.88 GB"]
    # (0.95 * 25 GB - weights) / 729,088 bytes a position
    texts = columns["longest text"]
    assert texts[0].startswith("does not fit: 13.8 GB short")
    assert texts[1:] == ["6,797 of 16,384", "16,384 of 16,384", "16,384 of 16,384"]
    # 8,323,433,472 numbers a token: 16.65, 8.33 and 5.2 GB of them, and 9.66 GB of cache at the end
    rates = columns["tokens a second, predicted"]
    assert rates[1:] == [
        "2.4 at first, 1.94 at the end",
        "4.8 at first, 2.22 at the end",
        "7.69 at first, 2.69 at the end",
    ]
    monkeypatch.setattr(doctor, "free_memory", lambda: {"cpu": 25_000_000_000})
    result = run("doctor", "--model", "8b")
    assert result.exit_code == 0
    assert "8b on cpu, where 25 GB are free" in result.stdout
    assert "predicted, and more than a whole step will reach" in result.stdout
    assert "mini on cpu" in run("doctor", "--model", "mini").stdout


def test_what_is_spread_out():
    """403 MB a layer and 34 of its cache (at 2,048 positions); 2.1 GB of embedding and 2.1 of room for the head."""
    [line] = doctor.spread({"cuda:0": 16_000_000_000, "cpu": 20_000_000_000})
    assert line == "Persimmon-8B in bfloat16, 2,048 tokens, spread out: 25 layers on cuda:0, 11 layers on cpu"
    assert list(doctor.spread({"cpu": 99_000_000_000})) == []
    assert list(doctor.spread({"cuda:0": 80_000_000_000, "cpu": 1})) == []


# train


def test_train_mini_passes_its_options_on(run, monkeypatch, tmp_path):
    asked = {}

    def train_mini(workdir, out, **settings):
        asked.update(workdir=workdir, out=out, **settings)

    monkeypatch.setattr(train, "train_mini", train_mini)
    result = run("train", "mini", "--workdir", tmp_path / "work", "--steps", 7, "--out", tmp_path / "out")
    assert result.exit_code == 0, result.stderr
    cpu = torch.device("cpu")
    usual = {"steps": 7, "device": cpu, "dtype": None, "start": None, "first_step": 0}
    assert asked == {"workdir": tmp_path / "work", "out": tmp_path / "out", **usual}
    result = run("train", "mini", "--device", "cpu:0", "--dtype", "bfloat16", "--start", tmp_path, "--first-step", 500)
    assert result.exit_code == 0, result.stderr
    assert asked["device"] == torch.device("cpu:0") and asked["dtype"] == torch.bfloat16
    assert (asked["start"], asked["first_step"]) == (tmp_path, 500)


@pytest.mark.parametrize("device", ["cuda:99", "nowhere"])
def test_training_on_a_device_that_is_not_there_is_told_in_a_line(run, device):
    result = run("train", "mini", "--device", device)
    assert result.exit_code == 1 and result.stderr.startswith(f"persimmon-lab: --device {device}: ")
    assert result.stderr.count("\n") == 1


def test_train_on_files_of_ones_own(run, tmp_path):
    notes = tmp_path / "notes.txt"
    notes.write_text(
        "\n\n".join(
            f"The {word} sat on mat {number} and said so." * 9
            for word in ["cat", "dog", "hen", "fox", "owl"]
            for number in range(9)
        )
    )
    sizes = ["--layers", 1, "--hidden", 32, "--context", 32, "--vocabulary", 400, "--steps", 2]
    result = run("train", notes, *sizes, "--out", tmp_path / "own")
    assert result.exit_code == 0, result.stderr
    model = PersimmonForCausalLM.from_pretrained(tmp_path / "own")
    tokenizer = PersimmonTokenizer.from_pretrained(tmp_path / "own")
    assert (model.config.num_hidden_layers, model.config.hidden_size) == (1, 32)
    assert model.config.vocab_size == len(tokenizer) <= 400
    assert result.stdout.strip() and (tmp_path / "own" / "loss.svg").read_text().startswith("<svg")


def test_texts_given_twice_are_told_in_a_line(run, tmp_path):
    notes = tmp_path / "notes.txt"
    notes.write_text("\n\n".join(f"The hen sat on mat {number} and said so." * 9 for number in range(45)))
    sizes = ["--layers", 1, "--hidden", 32, "--context", 32, "--vocabulary", 400, "--steps", 1]
    result = run("train", notes, notes, *sizes, "--out", tmp_path / "own")
    assert result.exit_code == 0, result.stderr
    told = [line for line in result.stderr.splitlines() if "45 of 90 paragraphs were said before" in line]
    assert len(told) == 1 and told[0].startswith("persimmon-lab: "), result.stderr
    assert "Warning" not in result.stderr and ".py:" not in result.stderr


@pytest.mark.parametrize(
    ("content", "options", "message"),
    [
        (b"\xff\xfe no text", [], "is not UTF-8 text: .* at byte 0"),
        (b"too little", [], "too little text"),
        (
            b"\n\n".join(b"this is part %d." % part for part in range(400)),
            ["--hidden", 40, "--context", 8000],
            "too few for rows of 8000",
        ),
    ],
)
def test_texts_that_will_not_do_are_told_in_a_line(run, tmp_path, content, options, message):
    (tmp_path / "notes.txt").write_bytes(content)
    result = run("train", tmp_path / "notes.txt", "--vocabulary", 400, *options, "--out", tmp_path / "own")
    assert result.exit_code == 1 and re.search(message, result.stderr), result.stderr
    assert result.stderr.count("\n") == 1


# errors


@pytest.fixture
def broken(monkeypatch):
    """broken(error): a command line on which `inspect` raises it."""

    def breaks(error: Exception) -> list[str]:
        def read(_folder, **options):
            raise error

        monkeypatch.setattr(inspect, "read_config", read)
        return ["inspect", "mini"]

    return breaks


def test_our_own_faults_are_told_too_with_the_way_to_the_traceback(run, broken):
    command = broken(KeyError("layers"))
    result = run(*command)
    assert result.exit_code == 1 and isinstance(result.exception, SystemExit)
    first, second = result.stderr.splitlines()
    assert first == "persimmon-lab: KeyError: 'layers'"
    assert "persimmon-lab --traceback COMMAND" in second
    with pytest.raises(KeyError):
        run("--traceback", *command, catch_exceptions=False)


def test_a_mistake_is_traced_where_that_is_asked_for():
    program = "from persimmon_lab.cli import app\napp(['--traceback', 'generate', 'x', '-m', 'there/is/none'])"
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert result.returncode == 1
    assert result.stderr.startswith("Traceback") and "neither a folder nor a hub id" in result.stderr


def test_an_error_of_many_lines_is_told_in_three(run, broken):
    result = run(*broken(RuntimeError("one\n\n" + "\n".join(f"line {index}" for index in range(50)))))
    assert result.stderr.splitlines() == [
        "persimmon-lab: one",
        "line 0",
        "… and 49 lines more; to see them all: persimmon-lab --traceback COMMAND …",
    ]
    assert run(*broken(ValueError("one\ntwo\nthree"))).stderr == "persimmon-lab: one\ntwo\nthree\n"
    assert run(*broken(MemoryError())).stderr == "persimmon-lab: MemoryError\n"


@pytest.mark.parametrize(
    ("arguments", "message", "help"),
    [
        (["generate"], "Missing argument", "generate --help"),
        (["generate", "x", "--top-p", 3], "Invalid value for '--top-p'", "generate --help"),
        (["--traceback", "generate", "x", "--engine", "warp"], "'warp'", "generate --help"),
        (["generate", "x", "--length-penalty", 2], "Invalid value for --length-penalty", "generate --help"),
        (["generat", "x"], "Did you mean 'generate'", "--help"),
        (["--colour", "generate"], "No such option: --colour", "--help"),
        (["train", "mini", "--steps", "many"], "Invalid value for '--steps'", "train mini --help"),
    ],
    ids=str,
)
def test_a_command_line_without_sense_is_told_in_two_lines(run, arguments, message, help):
    result = run(*arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    first, second = result.stderr.splitlines()
    assert first.startswith("persimmon-lab: ") and message in first
    assert second.startswith("Try '") and second.endswith(f"{help}'.")


@pytest.mark.parametrize("arguments", [[], ["train"]])
def test_without_a_command_there_is_help(run, arguments):
    result = run(*arguments)
    assert "Usage:" in result.output
    assert "persimmon-lab: " not in result.output


@pytest.mark.parametrize(
    ("closed", "command", "message"),
    [
        ("<&-", ["generate", "-"], "the standard input is closed"),
        ("<&-", ["chat"], "the standard input is closed"),
        (">&-", ["inspect", "mini"], "the standard output is closed"),
    ],
)
def test_a_stream_that_a_shell_has_closed_is_told_in_a_line(closed, command, message):
    program = f"from persimmon_lab.cli import app; app({command})"
    line = f'"{sys.executable}" -c "{program}" {closed}'
    result = subprocess.run(line, shell=True, stderr=subprocess.PIPE, text=True)
    assert result.returncode == 1
    assert result.stderr.startswith(f"persimmon-lab: {message}") and result.stderr.count("\n") == 1


def test_nobody_needs_the_standard_error():
    program = "from persimmon_lab.cli import app; app(['inspect', 'mini', '--json'])"
    result = subprocess.run(f'"{sys.executable}" -c "{program}" 2>&-', shell=True, stdout=subprocess.PIPE, text=True)
    assert result.returncode == 0 and json.loads(result.stdout)["parameters"]


def test_a_device_that_is_not_there_is_told_in_a_line(run, checkpoint, monkeypatch):
    def refuse(*_sizes, **_options):
        raise NotImplementedError("Could not run it\n" + "a backend\n" * 55)

    monkeypatch.setattr(torch, "empty", refuse)
    result = run("generate", "x", "-m", checkpoint, "--device", "mps")
    assert (result.exit_code, result.stderr) == (
        1,
        "persimmon-lab: --device mps: Could not run it; take cpu, or a device that torch has here\n",
    )


# Odd values


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["generate", "x", "--num-beams", 2, "--length-penalty", 1e9],
            r"length_penalty=1000000000\.0.* from -10 to 10",
        ),
        (["generate", "x", "--temperature", 1e-320], "temperature=1e-320, but it has to be at least 1e-30"),
        (["generate", "x", "--repetition-penalty", 1e300], r"repetition_penalty=1e\+300, but it has to be"),
        (["generate", "x", "--temperature", 1, "--seed", "1" * 26], "seed=1{26}, but it has to be a whole number"),
        (["chat", "--seed", "1" * 26], "seed=1{26}, but it has to be a whole number"),
        (["generate", "x", "--stop", "\udcff"], "holds half a character"),
        (["generate", "x", "--device", "meta"], "--device meta: there tensors have shapes and no numbers"),
        (["generate", "x", "--device", "xla"], "--device xla: .*take cpu"),
        (["chat", "--max-new-tokens", 600], "--max-new-tokens 600 leaves no room for a question: .*such as 64"),
        (["generate", "x", "--model", ""], "the name of the model is empty"),
        (["inspect", ""], "the name of the model is empty"),
        (["convert", "x", ""], "'OUT': the name is empty; name a folder"),
        (["export", "mini", "", "--format", "hf"], "'OUT': the name is empty; name a folder"),
        (["train", VOCABULARY, "--out", ""], "'--out': the name is empty"),
        (["finetune", VOCABULARY, "--out", ""], "'--out': the name is empty"),
        (["classify", VOCABULARY, "--out", ""], "'--out': the name is empty"),
        (["evaluate", "mini", "--out", ""], "'--out': the name is empty"),
        (["train", VOCABULARY, "--out", "x", "--seed", "1" * 26], "--seed"),
    ],
)
def test_odd_values_are_told_in_a_line(run, checkpoint, tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    if arguments[0] in ("generate", "chat") and "--model" not in arguments:
        arguments = [*arguments, "--model", checkpoint]
    result = run(*arguments, input="Hi\n")
    lines = result.stderr.splitlines()
    assert result.exit_code in (1, 2) and 1 <= len(lines) <= 2 and lines[0].startswith("persimmon-lab: "), result.stderr
    assert re.search(message, lines[0]) and max(map(len, lines)) < 240, result.stderr
    assert result.stdout == "" and list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["config.json", "generation_config.json", "tokenizer_config.json"])
def test_json_nested_too_deep_is_told_in_a_line(run, model, tokenizer, tmp_path, name):
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    (tmp_path / name).write_text("[" * 100_000)
    result = run("generate", "x", "--model", tmp_path)
    assert result.exit_code == 1 and len(result.stderr.splitlines()) == 1, result.stderr
    assert re.search(rf"{re.escape(name)}.* nested too deep", result.stderr), result.stderr


def test_a_warning_is_a_line_of_our_own(run, checkpoint, monkeypatch):
    def load(*_arguments):
        warnings.warn("the text is longer\nthan that", stacklevel=2)
        raise ValueError("enough")

    monkeypatch.setattr(generate, "load", load)
    result = run("generate", "x", "--model", checkpoint)
    assert result.stderr == "persimmon-lab: the text is longer than that\npersimmon-lab: enough\n"


def test_generate_with_rounded_weights(run):
    """The tokens are those of the model that was loaded so."""
    model, tokenizer = PersimmonForCausalLM.from_pretrained(MINI, quantize="int4"), load_mini()[1]
    ids = tokenizer("human: Hello!", return_tensors="pt").input_ids
    right = tokenizer.decode(model.generate(ids, max_new_tokens=6)[0, ids.shape[1] :], skip_special_tokens=True)
    result = run("generate", "human: Hello!", "--max-new-tokens", "6", "--quantize", "int4")
    assert (result.exit_code, result.stdout.strip()) == (0, right.strip())


@pytest.mark.parametrize("command", ["generate", "chat"])
def test_weights_are_left_in_their_file_on_request(run, monkeypatch, command):
    asked = []

    def from_pretrained(path, mmap=False, load=PersimmonForCausalLM.from_pretrained, **options):
        asked.append(mmap)
        return load(path, mmap=mmap, **options)

    monkeypatch.setattr(PersimmonForCausalLM, "from_pretrained", from_pretrained)
    arguments = ["human: Hello!"] if command == "generate" else []
    options = ["--seed", "1", "--temperature", "1", "--max-new-tokens", "6"]
    copied, mapped = (run(command, *arguments, *options, *how, input="Hello!\n").stdout for how in ([], ["--mmap"]))
    assert asked == [False, True] and mapped == copied != ""
