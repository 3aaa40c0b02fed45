"""Rules about the folders of a repository: what Triton takes for a model, and what for a version."""

from __future__ import annotations

from builder.rules.rule import Rule

FOLDER = Rule(
    id="folder-unreadable",
    severity="error",
    title="a folder cannot be read",
    reason="The server lists the repository, each model and its first version; what it may not read, it refuses.",
    fix="Give the user that the server runs as the right to read it: chmod -R a+rX DIR.",
    bad="chmod 000 model_repository/encoder",
    good="chmod 755 model_repository/encoder",
)
LINK = Rule(
    id="link-broken",
    severity="error",
    title="a link leads nowhere, or in circles",
    reason='The server asks of every name in a folder whether it is a folder: "failed to stat file". Because of one '
    "broken link in a model's folder it refuses the model, because of one in the repository it reads none of it.",
    fix="Remove the link, or mend where it leads.",
    bad="ln -s /nowhere model_repository/encoder/labels.txt",
    good="cp labels.txt model_repository/encoder/labels.txt",
)
CONFIG_FILE = Rule(
    id="config-unreadable",
    severity="error",
    title="config.pbtxt cannot be read",
    reason="The server opens the file before anything else of a model, and refuses the model where it cannot.",
    fix="Make it a text file that the server may read.",
    bad="mkdir model_repository/encoder/config.pbtxt",
    good="chmod a+r model_repository/encoder/config.pbtxt",
)
NOT_A_MODEL = Rule(
    id="folder-not-a-model",
    severity="error",
    title="a folder of the repository is no model",
    reason="Triton takes every folder of a repository for a model, hidden ones too, and refuses those that are none; "
    "with "
    "`--strict-readiness` the server is then never ready.",
    fix="Move the folder out of the repository.",
    bad="mkdir model_repository/.ipynb_checkpoints",
    good="rm -r model_repository/.ipynb_checkpoints",
)
IS_A_MODEL = Rule(
    id="repository-is-a-model",
    severity="error",
    title="what is named as the repository is one model",
    reason="A repository holds a folder per model; given the model's own folder, the server takes its versions for "
    "models and finds none.",
    fix="Name the folder above.",
    bad="check-repo model_repository/encoder",
    good="check-repo model_repository",
)
NO_VERSION = Rule(
    id="version-none",
    severity="error",
    title="a model has no version that its policy serves",
    reason='"at least one version must be available under the version policy of model": an ensemble needs a version\'s '
    "folder too, an empty one.",
    fix="Make a folder named by a number without leading zeros: 1.",
    bad="encoder/config.pbtxt, encoder/model.onnx",
    good="encoder/config.pbtxt, encoder/1/model.onnx",
)
MISSING_VERSION = Rule(
    id="version-missing",
    severity="warning",
    title="the version policy names a version that is not there",
    reason='The server logs "version .. is specified for model .., but the version directory is not present" and '
    "serves "
    "the others; requests for that version fail.",
    fix="Add the version's folder, or take the number out.",
    bad="version_policy { specific { versions: [1, 7] } }, and the folder 1 alone",
    good="version_policy { specific { versions: [1] } }",
)
VERSION_NAME = Rule(
    id="version-folder-name",
    severity="error",
    title="a version's folder is named by more than its number",
    reason="The server reads the digits at the front of the name and then looks for a folder named by them alone, "
    "which "
    "is not there.",
    fix="Name the folder by the number alone.",
    bad="encoder/1-old/model.onnx",
    good="encoder/1/model.onnx",
)
VERSION_HUGE = Rule(
    id="version-folder-huge",
    severity="error",
    title="a version's number is larger than any number",
    reason='The server reads it as a number of 64 bits, and ends on the spot where it is none: "terminate called after '
    "throwing an instance of 'std::out_of_range'\".",
    fix="Name the folder by a smaller number.",
    bad="encoder/99999999999999999999/model.onnx",
    good="encoder/20261121/model.onnx",
)
IGNORED = Rule(
    id="version-folder-ignored",
    severity="warning",
    title="a folder of a model is neither a version nor one that Triton knows",
    reason='"ignore version directory .. which contains leading zeros in its directory name", "which fails to convert '
    "to "
    'integral number": the server passes over it, so a model in it is never served.',
    fix="Name a version by a number without leading zeros; move the rest elsewhere.",
    bad="encoder/01/model.onnx",
    good="encoder/1/model.onnx",
)
DUPLICATE = Rule(
    id="model-twice",
    severity="error",
    title="two repositories hold a model of one name",
    reason='"failed to poll model ..: not unique across all model repositories": the server loads neither, unless it '
    "is "
    "started with --model-namespacing=true.",
    fix="Rename one of both, or serve one repository only.",
    bad="check-repo a b, with a/encoder and b/encoder",
    good="check-repo a b, with a/encoder and b/encoder_v2",
)
INTERNAL = Rule(
    id="internal",
    severity="warning",
    title="a rule of check-repo failed",
    reason="A mistake in check-repo, not in the repository: the rule that is named could not look, everything else was "
    "judged.",
    fix="Report it with the file that it is about.",
    bad="",
    good="",
)
RULES: tuple[Rule, ...] = (
    FOLDER,
    LINK,
    CONFIG_FILE,
    NOT_A_MODEL,
    IS_A_MODEL,
    NO_VERSION,
    MISSING_VERSION,
    VERSION_NAME,
    VERSION_HUGE,
    IGNORED,
    DUPLICATE,
    INTERNAL,
)
