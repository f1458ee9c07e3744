"""Commands on ONNX files, ours or a stranger's, and on releases. No torch here."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from compressor.base.terminal_text import say
from compressor.cli.options import AsJson, Quiet, Seed, Threads, print_json
from compressor.process.exit_codes import exits

if TYPE_CHECKING:
    from compressor.explain import Judged
    from compressor.process.progress import Watch

app = typer.Typer()

Batch = Annotated[int, typer.Option(help="size of a dynamic first dimension")]
Providers = Annotated[
    list[str] | None, typer.Option(help="execution provider, in order of preference; repeatable")
]
TimeLimit = Annotated[
    float | None,
    typer.Option(
        min=0.1, help="seconds that one run may take; default: twice --seconds, at least 60"
    ),
]


@app.command()
@exits
def bench(
    models: Annotated[list[Path], typer.Argument(help="ONNX files; the first is the baseline")],
    batch: Batch = 1,
    threads: Threads = 1,
    provider: Annotated[
        list[str] | None, typer.Option(help="execution provider; repeatable; default: all offered")
    ] = None,
    rounds: Annotated[int, typer.Option(help="rounds at least")] = 30,
    seconds: Annotated[float, typer.Option(help="time at most, per provider")] = 60.0,
    time_limit: TimeLimit = None,
    seed: Seed = 0,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Race ONNX models side by side in ONNX Runtime."""
    from compressor import bench as instrument
    from compressor.process.progress import watch, wide_console

    shown = watch(quiet or as_json)
    races = []
    for name in provider or instrument.offered_providers():
        with shown.stage(f"race on {name}"):
            races.append(
                instrument.race(
                    _named(models),
                    batch=batch,
                    threads=threads,
                    providers=[name],
                    rounds=rounds,
                    max_seconds=seconds,
                    seed=seed,
                    time_limit=time_limit,
                    progress=shown.advance,
                )
            )
    if as_json:
        print_json([race.to_json() for race in races])
    elif not quiet:
        for race in races:
            wide_console().print(instrument.render(race))


@app.command()
@exits
def align(
    model: Annotated[Path, typer.Argument(help="ONNX file")],
    output: Annotated[Path, typer.Option("--output", "-o", help="ONNX file to write")],
    batch: Batch = 1,
    threads: Threads = 1,
    provider: Providers = None,
    seconds: Annotated[float, typer.Option(min=0.1, help="time for the race, at most")] = 30.0,
    time_limit: TimeLimit = None,
    seed: Seed = 0,
    force: Annotated[bool, typer.Option("--force", help="replace the output")] = False,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Pad the channels of an ONNX model with zeros where that makes it faster."""
    from compressor import align as instrument
    from compressor.bench import render
    from compressor.onnx import model_files
    from compressor.process.progress import watch, wide_console
    from compressor.storage.files import check_writable, write_file

    check_writable(output, force=force)
    shown = watch(quiet or as_json)
    with shown.stage("align"):
        found = instrument.align(
            model_files.read(model),
            batch=batch,
            threads=threads,
            providers=provider,
            max_seconds=seconds,
            seed=seed,
            time_limit=time_limit,
            progress=shown.advance,
        )
    write_file(output, found.data)
    if as_json:
        print_json(found.to_json())
    elif not quiet:
        if found.race is not None:
            wide_console().print(render(found.race))
        say(f"{found.verdict}: {output}")


@app.command()
@exits
def check(
    new: Annotated[Path, typer.Argument(help="ONNX file to judge")],
    baseline: Annotated[Path, typer.Option(help="ONNX file that it must not be slower than")],
    max_regression: Annotated[str, typer.Option(help="this much slower is still fine")] = "5%",
    max_growth: Annotated[
        str | None, typer.Option(help="so much larger a file, with its external data, is fine")
    ] = None,
    max_macs_growth: Annotated[
        str | None,
        typer.Option(
            help="so many more multiply-accumulates are fine; elementwise operators have none"
        ),
    ] = None,
    evaluate: Annotated[
        list[str] | None, typer.Option(help="path/file.py:callable(predict); repeatable")
    ] = None,
    max_drop: Annotated[
        float | None, typer.Option(min=0, help="the metric may become worse by this much")
    ] = None,
    metric: Annotated[
        str | None, typer.Option(help="which one: NAME, NAME:min or NAME:max; default: first")
    ] = None,
    batch: Batch = 1,
    threads: Threads = 1,
    provider: Providers = None,
    seconds: Annotated[float, typer.Option(min=0.1, help="time at most")] = 30.0,
    time_limit: TimeLimit = None,
    seed: Seed = 0,
    junit: Annotated[Path | None, typer.Option(help="JUnit file to write, for a CI server")] = None,
    markdown: Annotated[Path | None, typer.Option(help="Markdown file to write")] = None,
    history: Annotated[
        Path | None, typer.Option(help="JSON file to write, for github-action-benchmark")
    ] = None,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Is a model slower than the one before? Passed (0), regressed (1) or inconclusive (3)."""
    from compressor import gate
    from compressor.gate import formats
    from compressor.process.progress import watch
    from compressor.storage.files import check_writable, write_file

    wanted = {formats.junit: junit, formats.markdown: markdown, formats.history: history}
    for path in filter(None, wanted.values()):
        check_writable(path)
    shown = watch(quiet or as_json)
    with shown.stage("race"):
        found = gate.check(
            new,
            baseline,
            max_regression=gate.percentage(max_regression),
            max_growth=None if max_growth is None else gate.percentage(max_growth),
            max_macs_growth=(None if max_macs_growth is None else gate.percentage(max_macs_growth)),
            evaluate=tuple(evaluate or ()),
            max_drop=max_drop,
            metric=metric,
            batch=batch,
            threads=threads,
            providers=provider,
            max_seconds=seconds,
            seed=seed,
            time_limit=time_limit,
            progress=shown.advance,
        )
    for text, target in wanted.items():
        if target is not None:
            write_file(target, text(found, new.name).encode())
    if as_json:
        print_json(found.to_json())
    elif not quiet:
        say(formats.markdown(found, new.name).rstrip("\n"))
    raise typer.Exit(found.exit_code)


@app.command()
@exits
def explain(
    models: Annotated[list[Path], typer.Argument(help="one ONNX file, or two to compare")],
    batch: Batch = 1,
    threads: Threads = 1,
    runs: Annotated[int, typer.Option(min=1, help="runs under the profiler")] = 30,
    most: Annotated[int, typer.Option(min=1, help="operators to show, the dearest first")] = 20,
    stairs: Annotated[
        Path | None, typer.Option(help="page to write: the dearest layers at other widths")
    ] = None,
    time_limit: TimeLimit = None,
    seed: Seed = 0,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Show where the time of ONNX models goes, and what bounds each operator."""
    from compressor.explain import explain as run
    from compressor.explain import render
    from compressor.explain.roofline import measure
    from compressor.process.progress import watch, wide_console
    from compressor.process.time_limit import LEAST

    shown = watch(quiet or as_json)
    with shown.stage("roofline"):
        roofline = measure(threads)
    found = {}
    for name, path in _named(models).items():
        with shown.stage(f"profile {name}"):
            found[name] = run(
                path,
                batch=batch,
                threads=threads,
                runs=runs,
                seed=seed,
                time_limit=time_limit or LEAST,
                roofline=roofline,
            )
    more = _stairs(found, stairs, threads, shown) if stairs is not None else {}
    if as_json:
        print_json({name: one.to_json() | more.get(name, {}) for name, one in found.items()})
    elif not quiet:
        for table in render(found, most):
            wide_console().print(table)


def _stairs(
    found: "dict[str, Judged]", path: Path, threads: int, shown: "Watch"
) -> dict[str, dict[str, Any]]:
    """Measure the dearest layers at other widths, and write the page."""
    from compressor.explain import stairs

    measured = {}
    for name, one in found.items():
        with shown.stage(f"stairs {name}"):
            measured[name] = stairs.stairs(one, threads=threads, progress=shown.advance)
    stairs.write(measured, path)
    return {name: {"stairs": [row.to_json() for row in rows]} for name, rows in measured.items()}


@app.command()
@exits
def status(
    output: Annotated[Path, typer.Argument(help="directory that `build` writes")],
    as_json: AsJson = False,
) -> None:
    """Show whether a release is complete, and which results a build that was killed has kept."""
    from compressor.result.build_cache import STAGES, BuildCache
    from compressor.storage import manifest

    content = manifest.read(output)["content"] if (output / manifest.NAME).exists() else None
    kept = BuildCache.of(output).there()
    if as_json:
        print_json({"complete": content is not None, "content": content, "kept": kept})
        return
    say(f"{output} is {'complete: ' + content if content else 'not there'}")
    for stage in STAGES:
        if stage in kept:
            say(f"{stage}: {kept[stage]:,} bytes kept")


ExpectContent = Annotated[
    str | None,
    typer.Option(help="`content` that its manifest has to have: no older release, nor another"),
]


@app.command()
@exits
def verify(
    release: Annotated[Path, typer.Argument(help="directory that `build` wrote")],
    public: Annotated[
        Path | None, typer.Option("--key", help="key that it has to be signed by, PEM")
    ] = None,
    encrypt_key: Annotated[
        Path | None, typer.Option(help="file of 32 bytes that it is encrypted with")
    ] = None,
    expect_content: ExpectContent = None,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Check a release: every byte, the signature, and what ONNX Runtime gives (else 5)."""
    from compressor.release import verify as checks
    from compressor.storage import sealing

    key = None if encrypt_key is None else sealing.read_key(encrypt_key)
    found = checks.verify(release, public, key, expect_content)
    if as_json:
        print_json(found.to_json())
    elif not quiet:
        say(f"{found.files} files as the manifest says, content {found.content}")
        say("signed by this key" if found.signed else "the signature was not looked at: no --key")
        if found.passes:
            say(f"made by {found.passes}")
        for name, gap in found.parity.items():
            say(f"parity of {name}: {gap:.1e} of the largest output")


@app.command("open")
@exits
def open_release(
    release: Annotated[Path, typer.Argument(help="encrypted directory that `build` wrote")],
    encrypt_key: Annotated[
        Path, typer.Option(help="file of 32 bytes that it is encrypted with", show_default=False)
    ],
    output: Annotated[
        Path, typer.Option("--output", "-o", help="directory to write", show_default=False)
    ],
    public: Annotated[
        Path | None, typer.Option("--key", help="key that it has to be signed by, PEM")
    ] = None,
    expect_content: ExpectContent = None,
    force: Annotated[bool, typer.Option("--force", help="replace what is there")] = False,
    quiet: Quiet = False,
) -> None:
    """Decrypt a release, as a whole or not at all, into a directory that only you can read."""
    from compressor.release import decrypt
    from compressor.storage import sealing

    key = sealing.read_key(encrypt_key)
    names = decrypt.decrypt(release, output, key, public, expect_content, force=force)
    if not quiet:
        print(f"{names} files as the manifest says, decrypted into {output}")


def _named(models: list[Path]) -> dict[str, Path]:
    """File names, or as much of the paths as tells them apart."""
    names = [path.name for path in models]
    if len(set(names)) < len(names):
        names = [str(path) for path in models]
    if len(set(names)) < len(names):
        names = [f"{path} ({index})" for index, path in enumerate(models, 1)]
    return dict(zip(names, models, strict=True))
