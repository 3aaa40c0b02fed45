"""Rules about what a model is: its name, who serves it, which versions, in which batches."""

from __future__ import annotations

from collections.abc import Iterator

from builder.findings import did_you_mean
from builder.rules.rule import Hit, Rule
from builder.rules.subject import BACKENDS, ENSEMBLE, OTHER_BACKENDS, ConfigRule, Subject

_PLATFORM_OF = {
    "onnxruntime": ("onnxruntime_onnx",),
    "tensorrt": ("tensorrt_plan",),
    "pytorch": ("pytorch_libtorch",),
    "tensorflow": ("tensorflow_graphdef", "tensorflow_savedmodel"),
}
_KNOWN = (*BACKENDS, *OTHER_BACKENDS)

NAME = Rule(
    id="name-differs",
    severity="error",
    title="the name in the configuration is not the name of the folder",
    reason="Triton takes the folder's name for the model's and refuses another: \"unexpected directory name '..' for "
    "model '..', directory name must equal model name\".",
    fix="Take `name` out of config.pbtxt, or rename the folder.",
    bad='name: "encodr"  # in the folder `encoder`',
    good='name: "encoder"  # in the folder `encoder`',
)


def name_differs(subject: Subject) -> Iterator[Hit]:
    """The one field that says the name, against the folder."""
    name = subject.config.name
    if subject.name is not None and name and name != subject.name:
        yield Hit(
            f"the configuration is named `{name}`, its folder `{subject.name}`",
            f'write name: "{subject.name}", or nothing',
            ("name",),
        )


BACKEND = Rule(
    id="backend-missing",
    severity="error",
    title="nothing says which backend serves the model",
    reason="The backend comes from `backend`, from `platform`, from `default_model_filename` or from the file in the "
    "first version's folder, where it has the name its backend expects. Without any the server refuses the model: "
    '"unexpected platform type", or "Could not determine backend for model".',
    fix='Write `backend: "..."`.',
    bad='platform: "onnx"\nmax_batch_size: 8',
    good='backend: "onnxruntime"\nmax_batch_size: 8',
)


def backend_missing(subject: Subject) -> Iterator[Hit]:
    """Neither said nor to be found out."""
    config, served = subject.config, subject.served
    if served.backend or served.platform == ENSEMBLE:
        return
    if config.platform:
        hint = did_you_mean(config.platform, ["onnxruntime_onnx", "tensorrt_plan", "pytorch_libtorch", ENSEMBLE])
        named = did_you_mean(config.platform, BACKENDS).replace("did you mean", "write backend:").rstrip("?")
        yield Hit(
            f"no backend: `{config.platform}` is no platform that Triton knows",
            named.replace("`", '"') if config.platform in BACKENDS else hint or 'write backend: "..." instead',
            ("platform",),
        )
    elif config.default_model_filename:
        yield Hit(
            f"no backend: the file's name `{config.default_model_filename}` does not say it",
            'write backend: "..."',
            ("default_model_filename",),
        )
    elif config.HasField("ensemble_scheduling"):
        return  # ensemble-platform says it
    elif subject.files is not None:
        held = ", ".join(sorted(subject.files)[:5]) or "nothing"
        yield Hit(
            f"no backend: the configuration names none, and the first version holds {held}",
            'write backend: "...", or give the file the name that its backend expects: model.onnx, model.plan, ...',
        )


UNKNOWN = Rule(
    id="backend-unknown",
    severity="error",
    title="no such backend comes with Triton",
    reason='The server looks for `libtriton_NAME.so`, finds none, and refuses the model: "unable to find backend '
    "library for backend '..'\". A backend of your own in the server's backend directory cannot be seen from here: "
    "ignore this rule then.",
    fix="Correct the name, or put the library into the model's folder.",
    bad='backend: "onnxruntim"',
    good='backend: "onnxruntime"',
)


def backend_unknown(subject: Subject) -> Iterator[Hit]:
    """A name that is no backend's, unless its library lies there or `runtime` names one; `model.NAME` says one too."""
    backend = subject.config.backend or subject.backend
    if not backend or backend in _KNOWN or backend in subject.libraries or subject.config.runtime:
        return
    if subject.config.platform == ENSEMBLE:
        return  # platform-backend-pair says it
    hint = did_you_mean(backend, _KNOWN)
    yield Hit(
        f"no such backend: `{backend}`",
        hint or f"one of {', '.join(_KNOWN)}",
        ("backend",) if subject.config.backend else (),
    )


PAIR = Rule(
    id="platform-backend-pair",
    severity="error",
    title="platform and backend contradict each other",
    reason="A backend that Triton's core knows by name is taken only with its own platform: \"unexpected 'platform' "
    "and 'backend' pair\". An ensemble has a platform and no backend.",
    fix="Write only `backend`; of an ensemble only `platform`.",
    bad='backend: "onnxruntime"\nplatform: "tensorrt_plan"',
    good='backend: "onnxruntime"',
)


def platform_backend_pair(subject: Subject) -> Iterator[Hit]:
    """Both said, or the one said and the other filled in."""
    config, served = subject.config, subject.served
    if config.platform == ENSEMBLE and config.backend:
        yield Hit(f"an ensemble has no backend, this one has `{config.backend}`", "take `backend` out", ("backend",))
        return
    if config.platform == ENSEMBLE and served.backend:
        path = ("default_model_filename",)
        message = f"an ensemble has no file, and `{config.default_model_filename}` makes it a model of {served.backend}"
        yield Hit(message, "take `default_model_filename` out", path)
        return
    allowed = _PLATFORM_OF.get(served.backend)
    if served.backend == "pytorch" and served.platform == "torch_aoti":
        return  # served by releases that know it; which ones is for the rule of the fields
    if allowed is not None and served.platform not in allowed:
        got = f"platform `{served.platform}`" if served.platform else "no platform"
        yield Hit(
            f"backend `{served.backend}` and {got} do not go together",
            f'take `platform` out, or write platform: "{allowed[0]}"',
            ("platform",) if config.platform else ("backend",),
        )


BATCH = Rule(
    id="max-batch-size-negative",
    severity="error",
    title="max_batch_size is negative",
    reason="\"'max_batch_size' must be non-negative value\". 0 means that the model has no batch dimension.",
    fix="Write 0 or the largest batch the model takes.",
    bad="max_batch_size: -1",
    good="max_batch_size: 0",
)


def max_batch_size_negative(subject: Subject) -> Iterator[Hit]:
    """-1 is how others say `any`."""
    size = subject.config.max_batch_size
    if size < 0:
        yield Hit(f"max_batch_size is {size}", "write 0 or the largest batch the model takes", ("max_batch_size",))


VERSIONS = Rule(
    id="version-policy-empty",
    severity="error",
    title="the version policy serves no version",
    reason='`latest` of none and `specific` without a version choose nothing: "at least one version must be available '
    'under the version policy of model".',
    fix="Say how many, or which.",
    bad="version_policy { latest { num_versions: 0 } }",
    good="version_policy { latest { num_versions: 1 } }",
)


def version_policy_empty(subject: Subject) -> Iterator[Hit]:
    """A policy that is met by nothing, whatever the folder holds."""
    policy = subject.config.version_policy
    if policy.HasField("latest") and policy.latest.num_versions == 0:
        latest = ("version_policy", "latest", "num_versions")
        yield Hit("the version policy serves the latest 0 versions", "write num_versions: 1, or no policy", latest)
    if policy.HasField("specific") and not policy.specific.versions:
        specific = ("version_policy", "specific")
        yield Hit("the version policy names no version", "write versions: [1], or no policy", specific)


RULES: tuple[ConfigRule, ...] = (
    (NAME, name_differs),
    (BACKEND, backend_missing),
    (UNKNOWN, backend_unknown),
    (PAIR, platform_backend_pair),
    (BATCH, max_batch_size_negative),
    (VERSIONS, version_policy_empty),
)
