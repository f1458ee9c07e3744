"""A network as a short program.

    seed = 17
    x1 = image(channels=3, size=8)
    x2 = conv(x1, width=13, kernel=3)
    x3 = binary(x2, x1, fn='add')

Each step names the streams it reads and a few numbers and words; weights follow from the seed and
the step's name, so that a step keeps its weights when others are cut out.
"""

import ast
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Step:
    """One line of a genome: `name = op(sources, options)`."""

    name: str
    op: str
    sources: tuple[str, ...] = ()
    options: dict[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        words = [*self.sources, *(f"{key}={value!r}" for key, value in self.options.items())]
        return f"{self.name} = {self.op}({', '.join(words)})"


@dataclass(frozen=True)
class Genome:
    """A seed and the steps in the order in which they run."""

    seed: int
    steps: tuple[Step, ...]

    def __str__(self) -> str:
        return "\n".join([f"seed = {self.seed}", *map(str, self.steps)]) + "\n"

    def without(self, names: Collection[str]) -> "Genome":
        """The genome with these steps cut out: who read one reads what it read first."""
        instead: dict[str, str] = {}
        kept = []
        for step in self.steps:
            sources = tuple(instead.get(source, source) for source in step.sources)
            if step.name in names and sources:
                instead[step.name] = sources[0]
            elif step.name not in names:
                kept.append(Step(step.name, step.op, sources, step.options))
        return Genome(self.seed, tuple(kept))


def parse(text: str) -> Genome:
    """The genome that prints as `text`. Raises ValueError on anything else."""
    seed, steps = 0, []
    for line in ast.parse(text).body:
        match line:
            case ast.Assign(targets=[ast.Name(id="seed")], value=ast.Constant(value=int(number))):
                seed = number
            case ast.Assign(
                targets=[ast.Name(id=name)],
                value=ast.Call(func=ast.Name(id=op), args=args, keywords=keywords),
            ):
                sources = tuple(ast.unparse(arg) for arg in args)
                options = {str(one.arg): ast.literal_eval(one.value) for one in keywords}
                steps.append(Step(name, op, sources, options))
            case _:
                raise ValueError(f"line {line.lineno} is not a step: {ast.unparse(line)}")
    return Genome(seed, tuple(steps))
