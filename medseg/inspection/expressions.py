"""Whether an expression of a config can only do what is known: by its syntax tree, without evaluating anything.

What is not allowed is refused, whatever it may be: names, attributes, methods and callables are listed. A method is
judged for every object that it could be called on: `x.replace(a)` moves a file where `x` is a path, so it takes two.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from medseg.inspection.known import known
from medseg.inspection.references import LONGEST, REFERENCES, replaced


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_BUILTINS = _words(
    """
    abs all any bool dict divmod enumerate float frozenset int isinstance len list max min range repr reversed
    round set slice sorted str sum tuple zip
    """
)
_CALLS_ITS_ARGUMENT = ("map", "filter")
_TYPES = ("bool", "float", "int", "str", "len")
_ATTRIBUTES = _words(
    """
    affine backup batch best_metric classes columns device dtype epoch epoch_length folder forward image images
    in_channels iteration label labels last_lr logger loss max_epochs meta metrics module name names ndim
    network optimizer out_channels output param_groups parent shape side spacing state stem store structures
    suffix type value
    """
)
_CONSTANT = re.compile(r"[A-Z][A-Z0-9_]*")
# Methods, with how many positional arguments they may have. None: any number, and any keywords.
_METHODS: Mapping[str, tuple[int, int] | None] = {
    **dict.fromkeys(
        _words(
            """
            argmax argmin as_posix astype bool clone count cpu cuda detach dim double flatten float get half int
            is_dir is_file item items keys long mean mirror_permutation named_parameters ndimension new_zeros numel
            numpy overlap_priority parameters permute reshape run select setLevel size squeeze startswith endswith
            state_dict strftime sum to tolist train transpose contralateral type unsqueeze values view
            """
        )
    ),
    **dict.fromkeys(_words("copy eval exists absolute resolve lower upper title isoformat children modules"), (0, 0)),
    **dict.fromkeys(_words("index join removeprefix removesuffix zfill load_state_dict"), (1, 1)),
    **dict.fromkeys(_words("strip lstrip rstrip split rsplit splitlines"), (0, 2)),
    "replace": (2, 3),
}
_SETTINGS = {f"torch.backends.cudnn.{name}" for name in ("benchmark", "deterministic", "enabled", "allow_tf32")} | {
    "torch.backends.cuda.matmul.allow_tf32"
}
_PLAIN = (
    ast.BinOp, ast.BoolOp, ast.Compare, ast.Dict, ast.IfExp, ast.List, ast.Set, ast.Slice, ast.Starred, ast.Tuple,
    ast.UnaryOp, ast.FormattedValue, ast.JoinedStr,
)  # fmt: skip
_ENVIRONMENT = ("LOCAL_RANK", "RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE")
UNSAFE_KEY = "patch_index"  # of an image's metadata: MONAI appends it, as text, to the path it saves the image to
_COMPREHENSIONS = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)


class Refusal(Exception):  # noqa: N818 - a reason, not an error
    """Why an expression is not known."""


def parsed(text: str) -> ast.expr:
    """The tree of an expression with its `$`, as Python gets it.

    Raises:
        Refusal: it is too long, or Python cannot read it.
    """
    if len(text) > LONGEST:
        raise Refusal(f"it has more than {LONGEST} characters")
    try:
        return ast.parse(replaced(text), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError) as problem:
        raise Refusal(f"Python cannot read it ({type(problem).__name__})") from problem


def reference(node: ast.AST) -> str | None:
    """The path that a node refers to; None where it is no reference."""
    if isinstance(node, ast.Subscript) and isinstance(node.value, ast.Name) and node.value.id == REFERENCES:
        key = node.slice
        return key.value if isinstance(key, ast.Constant) and isinstance(key.value, str) else None
    return None


@dataclass
class Expression:
    """Judges expressions.

    Args:
        names: what imports bind: module, or callable, by name.
        refers: called with the path of each reference; raises `Refusal`.
        calls: called with the known name of each callable that has rules, and the call, or None where it is no call;
            raises `Refusal`.
        ruled: whether a callable has rules.
        invokes: called with the path of each reference that is called itself; raises `Refusal`.
    """

    names: Mapping[str, str]
    refers: Callable[[str], None]
    calls: Callable[[str, ast.Call | None], None]
    ruled: Callable[[str], bool]
    invokes: Callable[[str], None] | None = None

    def judge(self, text: str) -> None:
        """Judge an expression with its `$`.

        Raises:
            Refusal: it could do more than what is known.
        """
        try:
            self._check(parsed(text), frozenset())
        except RecursionError as problem:
            raise Refusal("it is too deep") from problem

    def dotted(self, node: ast.AST) -> str | None:
        """The whole name of an attribute chain that begins with an imported name; None where it does not."""
        parts: list[str] = []
        while isinstance(node, ast.Attribute):
            parts.append(node.attr)
            node = node.value
        if not isinstance(node, ast.Name) or node.id not in self.names:
            return None
        return ".".join([self.names[node.id], *reversed(parts)])

    def _check(self, node: ast.AST, local: frozenset[str]) -> None:
        if isinstance(node, ast.Constant):
            if isinstance(node.value, str) and UNSAFE_KEY in node.value:
                raise Refusal(f"it names '{UNSAFE_KEY}', which moves what MONAI saves to another place")
            return
        if isinstance(node, (ast.Dict, ast.DictComp)):
            keys = node.keys if isinstance(node, ast.Dict) else [node.key]
            if any(isinstance(key, ast.Constant) and "/" in str(key.value) for key in keys):
                raise Refusal("it has a path as a key, and files are called by keys")
            if not all(isinstance(key, ast.Constant) for key in keys):
                raise Refusal("it makes a dictionary whose keys are only known when it runs")
        if isinstance(node, ast.Name):
            self._name(node.id, local)
        elif isinstance(node, ast.Attribute):
            self._attribute(node, local)
        elif isinstance(node, ast.Call):
            self._call(node, local)
        elif isinstance(node, ast.Subscript):
            self._subscript(node, local)
        elif isinstance(node, ast.Lambda):
            arguments = node.args
            named = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]
            named += [one for one in (arguments.vararg, arguments.kwarg) if one is not None]
            for default in (*arguments.defaults, *(one for one in arguments.kw_defaults if one is not None)):
                self._check(default, local)
            self._check(node.body, local | self._bound([one.arg for one in named]))
        elif isinstance(node, _COMPREHENSIONS):
            targets = [part for one in node.generators for part in ast.walk(one.target)]
            if any(isinstance(part, (ast.Attribute, ast.Subscript)) for part in targets):
                raise Refusal("it assigns to what it does not own")
            inner = local | self._bound([part.id for part in targets if isinstance(part, ast.Name)])
            for one in node.generators:
                for part in (one.iter, *one.ifs):
                    self._check(part, inner)
            for part in (node.key, node.value) if isinstance(node, ast.DictComp) else (node.elt,):
                self._check(part, inner)
        elif isinstance(node, _PLAIN):
            for child in ast.iter_child_nodes(node):
                if isinstance(child, ast.expr):
                    self._check(child, local)
        else:
            raise Refusal(f"it holds a {type(node).__name__}")

    def _bound(self, names: list[str]) -> frozenset[str]:
        for name in names:
            if name in self.names or name in _BUILTINS or (name.startswith("_") and name.strip("_")):
                raise Refusal(f"it gives the name '{name}' another meaning")
        return frozenset(names)

    def _name(self, name: str, local: frozenset[str]) -> None:
        if name in local or name in _BUILTINS:
            return
        if name not in self.names:
            raise Refusal(f"'{name}' is not known")
        found = known(self.names[name])
        if found is None:
            raise Refusal(f"it takes the module '{name}' as a value")
        if self.ruled(found):
            self.calls(found, None)

    def _attribute(self, node: ast.Attribute, local: frozenset[str]) -> None:
        if self._known(node) is not None:
            return
        plain = (
            node.attr in _ATTRIBUTES and self.dotted(node) is None
        )  # of a class it may be a method without its object
        if not plain and not _CONSTANT.fullmatch(node.attr):
            raise Refusal(f"the attribute '.{node.attr}' is not known")
        self._check(node.value, local)

    def _known(self, node: ast.Attribute) -> str | None:
        """The known callable that a chain names; None where it is a chain on a value.

        Raises:
            Refusal: it begins with a module and leads to nothing known, or is no call and has rules.
        """
        name = self.dotted(node)
        if name is None:
            return None
        found = known(name)
        if found is None:
            if self._on_known(node):
                return None
            raise Refusal(f"'{name}' is not known")
        if self.ruled(found):
            self.calls(found, None)
        return found

    def _on_known(self, node: ast.Attribute) -> bool:
        """Whether a chain is an attribute of something known, such as CommonKeys.IMAGE."""
        head: ast.AST = node.value
        while isinstance(head, ast.Attribute):
            if known(self.dotted(head) or "") is not None:
                return True
            head = head.value
        return isinstance(head, ast.Name) and known(self.names[head.id]) is not None

    def _subscript(self, node: ast.Subscript, local: frozenset[str]) -> None:
        path = reference(node)
        if path is not None:
            self.refers(path)
            return
        if self.dotted(node.value) == "os.environ" and getattr(node.slice, "value", None) in _ENVIRONMENT:
            return
        self._check(node.value, local)
        self._check(node.slice, local)

    def _call(self, node: ast.Call, local: frozenset[str]) -> None:
        name = self.dotted(node.func)
        found = known(name) if name is not None else None
        if isinstance(node.func, ast.Name) and found is None:
            self._builtin(node, node.func.id, local)
        elif found is not None:
            if self.ruled(found):
                self.calls(found, node)
        elif isinstance(node.func, ast.Attribute):
            self._method(node, node.func, local)
        elif (path := reference(node.func)) is not None and self.invokes is not None:
            self.invokes(path)
        else:
            raise Refusal("it calls what is only known when it runs")
        self._arguments(node, local)

    def _arguments(self, node: ast.Call, local: frozenset[str]) -> None:
        for argument in (*node.args, *(one.value for one in node.keywords)):
            self._check(argument, local)

    def _builtin(self, node: ast.Call, name: str, local: frozenset[str]) -> None:
        if name == "setattr":
            self._setting(node)
            return
        if name in local or (name not in _BUILTINS and name not in _CALLS_ITS_ARGUMENT):
            raise Refusal(f"it calls '{name}', which is not known")
        callbacks = [one.value for one in node.keywords if one.arg == "key"]
        if name in _CALLS_ITS_ARGUMENT:
            callbacks += node.args[:1]
        for one in callbacks:
            if not (isinstance(one, ast.Lambda) or (isinstance(one, ast.Name) and one.id in _TYPES)):
                raise Refusal(f"{name} would call what is only known when it runs")
        if name == "dict" and (node.args or any(one.arg is None or one.arg == UNSAFE_KEY for one in node.keywords)):
            raise Refusal("dict takes keys that stand in the expression")
        allowed = {"key", "reverse", "default", "start", "strict", "base"}
        if name != "dict" and any(one.arg not in allowed for one in node.keywords):
            raise Refusal(f"{name} takes no such argument")

    def _setting(self, node: ast.Call) -> None:
        arguments = node.args
        if len(arguments) == 3 and not node.keywords and all(isinstance(one, ast.Constant) for one in arguments[1:]):
            what = f"{_written(arguments[0])}.{getattr(arguments[1], 'value', '')}"
            if what in _SETTINGS and isinstance(getattr(arguments[2], "value", None), bool):
                node.args = []  # torch.backends.cudnn itself is no value
                return
        raise Refusal("setattr may switch settings of cudnn alone")

    def _method(self, node: ast.Call, func: ast.Attribute, local: frozenset[str]) -> None:
        name = self.dotted(func)
        if name is not None:  # also a method of a known class, which would take any object
            raise Refusal(f"'{name}' is not known")
        if isinstance(func.value, ast.Attribute):
            self._attribute(func.value, local)
        else:
            self._check(func.value, local)
        if func.attr not in _METHODS:
            raise Refusal(f"the method '.{func.attr}' is not known")
        bounds = _METHODS[func.attr]
        if bounds is not None:
            starred = any(isinstance(one, ast.Starred) for one in node.args) or node.keywords
            if starred or not bounds[0] <= len(node.args) <= bounds[1]:
                raise Refusal(f"the method '.{func.attr}' is not known with these arguments")


def _written(node: ast.AST) -> str:
    try:
        return ast.unparse(node)
    except (ValueError, RecursionError):
        return ""
