"""Judge an expression of a config by its syntax tree, without evaluating anything.

Names, attributes, methods and callables are listed, and everything else is refused. A method is judged for every object
that it could be called on: `x.replace(a)` moves a file where `x` is a path, so only `x.replace(a, b)` is allowed.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping, Sequence

from medseg.config.references import LOCALS, LONGEST, as_python, key_path
from medseg.inspection.allowlist import canonical_name


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
# Methods, with the least and the largest number of positional arguments. None: any number, and any keywords.
_METHODS: Mapping[str, tuple[int, int] | None] = {
    **dict.fromkeys(
        _words(
            """
            argmax argmin as_posix astype bool clone count cpu cuda detach dim double flatten float get half int
            is_dir is_file item items keys long mean mirror_permutation named_parameters ndimension new_zeros
            num_channels numel numpy overlap_priority parameters permute reshape run select setLevel size squeeze
            startswith endswith state_dict strftime sum to tolist train transpose contralateral type unsqueeze
            values view
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
_KEYWORDS = {"key", "reverse", "default", "start", "strict", "base"}
_COMPREHENSIONS = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)


class Refusal(Exception):  # noqa: N818 - a reason, not an error
    """Why an expression is not allowed."""


def parse_expression(text: str) -> ast.expr:
    """Return the tree of an expression with its `$`, as Python gets it.

    Raises:
        Refusal: it is too long, or Python cannot read it.
    """
    if len(text) > LONGEST:
        raise Refusal(f"it has more than {LONGEST} characters")
    try:
        return ast.parse(as_python(text), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError) as problem:
        raise Refusal(f"Python cannot read it ({type(problem).__name__})") from problem


def referenced_path(node: ast.AST) -> str | None:
    """Return the path that a node refers to; None for any node but a reference."""
    if isinstance(node, ast.Subscript) and isinstance(node.value, ast.Name) and node.value.id == LOCALS:
        key = node.slice
        return key_path(key.value) if isinstance(key, ast.Constant) and isinstance(key.value, str) else None
    return None


class ExpressionJudge:
    """Judge the expressions of a bundle. What the configs around them allow, a subclass checks.

    Args:
        names: the module, or the callable, that each imported name stands for.
    """

    def __init__(self, names: Mapping[str, str]) -> None:
        self.names = names

    def check_reference(self, path: str) -> None:
        """Check a reference; raise `Refusal` if it is not allowed."""

    def check_invoked(self, path: str) -> None:
        """Check a reference that is called itself."""
        raise Refusal("it calls what is only known when it runs")

    def check_call(self, name: str, node: ast.Call | None) -> None:
        """Check a listed callable by its canonical name, with its call, or None where it is not called."""

    def judge(self, text: str) -> None:
        """Judge an expression with its `$`.

        Raises:
            Refusal: it could do more than what is allowed.
        """
        try:
            self._check(parse_expression(text), frozenset())
        except RecursionError as problem:
            raise Refusal("it is too deep") from problem

    def dotted_name(self, node: ast.AST) -> str | None:
        """Return the full name of an attribute chain that begins with an imported name; None for any other node."""
        parts: list[str] = []
        while isinstance(node, ast.Attribute):
            parts.append(node.attr)
            node = node.value
        if not isinstance(node, ast.Name) or node.id not in self.names:
            return None
        return ".".join([self.names[node.id], *reversed(parts)])

    def callable_name(self, node: ast.AST) -> str | None:
        """Return the canonical name of the listed callable that a node names; None if it names none."""
        return canonical_name(self.dotted_name(node) or "")

    def _check(self, node: ast.AST, local: frozenset[str]) -> None:
        """Check a node; `local` are the names that lambdas and comprehensions around it bind."""
        if isinstance(node, ast.Constant):
            if isinstance(node.value, str) and UNSAFE_KEY in node.value:
                raise Refusal(f"it names '{UNSAFE_KEY}', which moves what MONAI saves to another folder")
        elif isinstance(node, ast.Name):
            self._name(node.id, local)
        elif isinstance(node, ast.Attribute):
            self._attribute(node, local)
        elif isinstance(node, ast.Call):
            self._call(node, local)
        elif isinstance(node, ast.Subscript):
            self._subscript(node, local)
        elif isinstance(node, ast.Lambda):
            self._lambda(node, local)
        elif isinstance(node, _COMPREHENSIONS):
            self._comprehension(node, local)
        elif isinstance(node, _PLAIN):
            if isinstance(node, ast.Dict):
                _check_keys(node.keys)
            for child in ast.iter_child_nodes(node):
                if isinstance(child, ast.expr):
                    self._check(child, local)
        else:
            raise Refusal(f"it holds a {type(node).__name__}")

    def _lambda(self, node: ast.Lambda, local: frozenset[str]) -> None:
        arguments = node.args
        bound = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]
        bound += [argument for argument in (arguments.vararg, arguments.kwarg) if argument is not None]
        for default in (*arguments.defaults, *arguments.kw_defaults):
            if default is not None:
                self._check(default, local)
        self._check(node.body, local | self._bound([argument.arg for argument in bound]))

    def _comprehension(self, node: ast.expr, local: frozenset[str]) -> None:
        generators: list[ast.comprehension] = getattr(node, "generators", [])
        targets = [part for generator in generators for part in ast.walk(generator.target)]
        if any(isinstance(part, (ast.Attribute, ast.Subscript)) for part in targets):
            raise Refusal("it assigns to something else than a name of its own")
        inner = local | self._bound([part.id for part in targets if isinstance(part, ast.Name)])
        for generator in generators:
            for part in (generator.iter, *generator.ifs):
                self._check(part, inner)
        if isinstance(node, ast.DictComp):
            _check_keys([node.key])
            self._check(node.key, inner)
            self._check(node.value, inner)
        elif isinstance(node, (ast.ListComp, ast.SetComp, ast.GeneratorExp)):
            self._check(node.elt, inner)

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
        target = canonical_name(self.names[name])
        if target is None:
            raise Refusal(f"it takes the module '{name}' as a value")
        self.check_call(target, None)

    def _attribute(self, node: ast.Attribute, local: frozenset[str]) -> None:
        name = self.dotted_name(node)
        if name is not None:
            target = canonical_name(name)
            if target is not None:
                self.check_call(target, None)
                return
            if not self._is_on_callable(node):
                raise Refusal(f"'{name}' is not known")
        # Of a class, an attribute in small letters may be a method without its object.
        if not (node.attr in _ATTRIBUTES and name is None) and not _CONSTANT.fullmatch(node.attr):
            raise Refusal(f"the attribute '.{node.attr}' is not known")
        self._check(node.value, local)

    def _is_on_callable(self, node: ast.Attribute) -> bool:
        """Return True for an attribute of a listed callable, such as CommonKeys.IMAGE."""
        head: ast.AST = node.value
        while isinstance(head, ast.Attribute):
            if self.callable_name(head) is not None:
                return True
            head = head.value
        return self.callable_name(head) is not None

    def _subscript(self, node: ast.Subscript, local: frozenset[str]) -> None:
        path = referenced_path(node)
        if path is not None:
            self.check_reference(path)
            return
        if self.dotted_name(node.value) == "os.environ" and getattr(node.slice, "value", None) in _ENVIRONMENT:
            return
        self._check(node.value, local)
        self._check(node.slice, local)

    def _call(self, node: ast.Call, local: frozenset[str]) -> None:
        target = self.callable_name(node.func)
        if target is not None:
            self.check_call(target, node)
        elif isinstance(node.func, ast.Name):
            if node.func.id == "setattr":
                self._setting(node)
                return
            self._builtin(node, node.func.id, local)
        elif isinstance(node.func, ast.Attribute):
            self._method(node, node.func, local)
        elif (path := referenced_path(node.func)) is not None:
            self.check_invoked(path)
        else:
            raise Refusal("it calls what is only known when it runs")
        for argument in (*node.args, *(keyword.value for keyword in node.keywords)):
            self._check(argument, local)

    def _setting(self, node: ast.Call) -> None:
        """Check a call of `setattr`, which may switch settings of cudnn alone."""
        if len(node.args) == 3 and not node.keywords:
            name, value = (getattr(argument, "value", None) for argument in node.args[1:])
            setting = f"{self.dotted_name(node.args[0])}.{name}"
            if setting in _SETTINGS and isinstance(value, bool) and isinstance(node.args[1], ast.Constant):
                return
        raise Refusal("setattr may switch settings of cudnn alone")

    def _builtin(self, node: ast.Call, name: str, local: frozenset[str]) -> None:
        if name in local or (name not in _BUILTINS and name not in _CALLS_ITS_ARGUMENT):
            raise Refusal(f"it calls '{name}', which is not known")
        callbacks = [keyword.value for keyword in node.keywords if keyword.arg == "key"]
        if name in _CALLS_ITS_ARGUMENT:
            callbacks += node.args[:1]
        for callback in callbacks:
            if not (isinstance(callback, ast.Lambda) or (isinstance(callback, ast.Name) and callback.id in _TYPES)):
                raise Refusal(f"{name} would call what is only known when it runs")
        if name == "dict":
            if node.args or any(keyword.arg is None or keyword.arg == UNSAFE_KEY for keyword in node.keywords):
                raise Refusal("dict takes only keys that are written in the expression")
        elif any(keyword.arg not in _KEYWORDS for keyword in node.keywords):
            raise Refusal(f"{name} takes no such argument")

    def _method(self, node: ast.Call, function: ast.Attribute, local: frozenset[str]) -> None:
        name = self.dotted_name(function)
        if name is not None:  # also a method of a listed class, which would take any object
            raise Refusal(f"'{name}' is not known")
        self._check(function.value, local)
        if function.attr not in _METHODS:
            raise Refusal(f"the method '.{function.attr}' is not known")
        counts = _METHODS[function.attr]
        if counts is not None:
            unpacked = any(isinstance(argument, ast.Starred) for argument in node.args) or node.keywords
            if unpacked or not counts[0] <= len(node.args) <= counts[1]:
                raise Refusal(f"the method '.{function.attr}' is not known with these arguments")


def _check_keys(keys: Sequence[ast.expr | None]) -> None:
    """Check the keys of a dictionary: MONAI names files by some keys, and one key moves what it saves."""
    if any(isinstance(key, ast.Constant) and "/" in str(key.value) for key in keys):
        raise Refusal("it has a path as a key, and files are named by keys")
    if not all(isinstance(key, ast.Constant) for key in keys):
        raise Refusal("it makes a dictionary whose keys are only known when it runs")
