"""What the user's code reads is seen, however it reads it; what it makes itself, and what is not the user's, is not."""

import hashlib
import os
import py_compile
import sqlite3
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import pytest

import builder
from builder.incremental import tracing as tracing_module
from builder.incremental.fingerprint import ABSENT, Fingerprints
from builder.incremental.tracing import note_read, tracing
from builder.incremental.watching import Watch
from builder.usercode import call, user_code


class User:
    """The user's folder, and their code run from it under a trace."""

    def __init__(self, folder, reports):
        self.folder = folder
        self.ours = (folder / "model_repository", folder / ".build")
        self.reports = reports

    def write(self, name, content="content"):
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(content))
        return path

    def run(self, code, *, fingerprints=None, **args):
        """Run ``run()`` of ``code``; the trace of it."""
        self.write("model.py", code)
        return self.again(fingerprints=fingerprints, **args)

    def again(self, *, fingerprints=None, **args):
        baseline = frozenset(name.split(".")[0] for name in sys.modules)
        self.now = fingerprints or self.fingerprints()
        with user_code(self.folder), tracing(self.now, self.folder, self.ours, baseline) as trace:
            self.result = call("model.py:run", args, self.folder, what="test")
        return trace

    def fingerprints(self):
        return Fingerprints(self.folder, ours=self.ours)


@pytest.fixture
def user(tmp_path, monkeypatch):
    folder = tmp_path / "project"
    folder.mkdir()
    monkeypatch.setattr(tracing_module, "_TICK_S", 0.0)  # files are made just before the trace begins
    modules = set(sys.modules)
    yield User(folder, tmp_path / "reports")
    for name in set(sys.modules) - modules:
        if str(tmp_path) in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]


def sha(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def files_in(trace):
    return {key.partition(":")[2] for key in trace.reads if key.startswith("file:")}


HERE = "from pathlib import Path\nHERE = Path(__file__).parent\n"

READERS = {
    "open": "def run():\n    with open(HERE / 'a.bin') as f: f.read()",
    "pathlib": "def run():\n    (HERE / 'a.bin').read_bytes()",
    "os.open": "import os\ndef run():\n    os.close(os.open(HERE / 'a.bin', os.O_RDONLY))",
    "os.open both ways": "import os\ndef run():\n    os.close(os.open(HERE / 'a.bin', os.O_RDWR))",
    "for update": "def run():\n    open(HERE / 'a.bin', 'r+b').close()",
    "bytes": "import os\ndef run():\n    open(os.fsencode(HERE / 'a.bin')).close()",
    "relative": "import os\ndef run():\n    os.chdir(HERE); open('a.bin').close()",
    "json": "import json\ndef run():\n    json.load(open(HERE / 'a.json'))",
    "np.load": "import numpy as np\ndef run():\n    np.load(HERE / 'a.npy')",
    "mapped": "import numpy as np\ndef run():\n    return np.load(HERE / 'a.npy', mmap_mode='r')",
    "memmap": "import numpy as np\ndef run():\n    return np.memmap(HERE / 'a.bin')",
    "mmap": "import mmap\ndef run():\n    with open(HERE / 'a.bin', 'rb') as f: mmap.mmap(f.fileno(), 0, prot=1)",
    "sqlite": "import sqlite3\ndef run():\n    sqlite3.connect(HERE / 'a.db').execute('select * from t').fetchall()",
    "sqlite by URI": "import sqlite3\ndef run():\n    sqlite3.connect(f'file:{HERE}/a.db?mode=ro', uri=True).close()",
    "zip": "import zipfile\ndef run():\n    zipfile.ZipFile(HERE / 'a.zip').namelist()",
    "in a thread": """
        import threading
        def run():
            thread = threading.Thread(target=lambda: open(HERE / 'a.bin').close())
            thread.start(); thread.join()""",
    "in a forked process": """
        import multiprocessing
        def read(name): open(name).close()
        def run():
            p = multiprocessing.get_context('fork').Process(target=read, args=[HERE / 'a.bin'])
            p.start(); p.join()""",
    "kept by a generator": "def run():\n    return list(line for line in open(HERE / 'a.bin'))",
    "safetensors": "from safetensors.numpy import load_file\ndef run():\n    load_file(HERE / 'a.safetensors')",
}


def _data(folder):
    (folder / "a.bin").write_bytes(b"0123456789")
    (folder / "a.json").write_text("{}")
    np.save(folder / "a.npy", np.ones(100_000))
    with sqlite3.connect(folder / "a.db") as database:
        database.execute("create table t (x)")
    subprocess.run([sys.executable, "-m", "zipfile", "-c", "a.zip", "a.bin"], cwd=folder, check=True)


@pytest.mark.parametrize("how", READERS)
def test_a_file_that_is_read_counts(user, how, monkeypatch):
    monkeypatch.chdir(user.folder)
    _data(user.folder)
    if how == "safetensors":
        pytest.importorskip("safetensors.numpy").save_file({"a": np.ones(9)}, user.folder / "a.safetensors")
    trace = user.run(HERE + textwrap.dedent(READERS[how]))
    names = sorted(files_in(trace) - {"model.py"})
    assert len(names) == 1, names
    name = names[0]
    assert trace.reads[f"file:{name}"] == sha(user.folder / name)
    assert not trace.changed
    assert trace.reads["file:model.py"] == sha(user.folder / "model.py")


C_LIBRARY = """
import ctypes, os
libc = ctypes.CDLL(None)
def run(name):
    descriptor = libc.open(os.fsencode(HERE / name), 0)
    assert descriptor >= 0
    os.close(descriptor)
"""


def test_a_file_that_a_c_library_opens_counts(user):
    if not Watch(user.folder).is_complete:
        pytest.skip("fanotify is not to be had here: a container that forbids it, or a kernel before 5.13")
    user.write("data/deep/a.bin")
    user.write("data/b.bin")
    trace = user.run(HERE + C_LIBRARY, name="data/deep/a.bin")
    assert files_in(trace) == {"model.py", "data/deep/a.bin"}
    assert not trace.changed


@pytest.mark.parametrize(
    "path", ["HERE / 'data' / 'a.bin'", "os.path.join(HERE, 'data', 'a.bin')", "f'{HERE}/data/a.bin'"]
)
def test_where_the_kernel_does_not_tell_a_file_that_is_named_in_the_source_counts(user, monkeypatch, path):
    monkeypatch.setattr("builder.incremental.watching._MAX_FOLDERS", 0)
    user.write("data/a.bin")
    user.write("data/b.bin")
    code = HERE + C_LIBRARY.replace("def run(name)", "def run()").replace("HERE / name", path)
    assert files_in(user.run(code)) == {"model.py", "data/a.bin"}


def test_a_file_outside_the_folder_that_is_named_in_the_source_counts_whoever_opens_it(user):
    user.write("../weights/a.bin")
    trace = user.run(HERE + C_LIBRARY.replace("run(name)", "run(name=HERE.parent / 'weights' / 'a.bin')"))
    assert f"file:{user.folder.parent}/weights/a.bin" in trace.reads


def test_we_can_tell_of_a_file_ourselves(user):
    path = user.write("external.data")
    with tracing(user.fingerprints(), user.folder, (), {name.split(".")[0] for name in sys.modules}) as trace:
        note_read(path)
    assert trace.reads == {"file:external.data": sha(path)}


# -- modules and packages ------------------------------------------------------------------------------------------


def test_modules_count_when_they_are_imported_late_and_by_others(user):
    user.write("late.py", "import later\n")
    user.write("later.py", "X = 1\n")
    user.write("never.py", "X = 2\n")
    trace = user.run("def run():\n    import late")
    assert files_in(trace) == {"model.py", "late.py", "later.py"}
    assert trace.reads["module:later"] == "later.py"


@pytest.mark.parametrize("name", ["helper", "model"])
def test_byte_code_of_another_text_is_not_taken_for_the_module(user, name):
    """Python trusts byte code by the size and the second of its source: that is not enough for us."""
    user.write("helper.py", "X = 1\n")
    user.write("model.py", "from helper import X\nY = 1\ndef run(): return X + Y\n")
    path = user.folder / f"{name}.py"
    facts = path.stat()
    py_compile.compile(str(path), doraise=True)
    path.write_text(path.read_text().replace("= 1", "= 5"))
    os.utime(path, ns=(facts.st_atime_ns, facts.st_mtime_ns))
    trace = user.again()
    assert user.result == 6
    assert trace.reads[f"file:{name}.py"] == sha(path)


def test_a_module_on_the_path_counts_by_its_content_and_by_its_place(user, tmp_path, monkeypatch):
    for version in ("one", "two"):
        user.write(f"../{version}/shared_helper.py", f"X = '{version}'\n")
    monkeypatch.syspath_prepend(str(tmp_path / "one"))
    trace = user.run("import shared_helper\ndef run():\n    return shared_helper.X")
    assert trace.reads["module:shared_helper"] == str(tmp_path / "one" / "shared_helper.py")
    assert f"file:{tmp_path}/one/shared_helper.py" in trace.reads

    monkeypatch.syspath_prepend(str(tmp_path / "two"))  # as another PYTHONPATH would
    assert user.fingerprints().of("module:shared_helper") == str(tmp_path / "two" / "shared_helper.py")


def test_a_module_that_was_not_there_and_comes_counts(user):
    code = "try:\n    import faster_way\nexcept ImportError:\n    faster_way = None\ndef run(): pass"
    trace = user.run(code)
    assert trace.reads["module:faster_way"] == ABSENT
    user.write("faster_way.py")
    assert user.fingerprints().of("module:faster_way") == "faster_way.py"


def test_a_file_of_the_users_that_hides_another_module_counts(user):
    trace = user.run("import yaml\ndef run(): pass")
    assert trace.reads["module:yaml"] == "installed"
    user.write("yaml/__init__.py", "")
    assert user.fingerprints().of("module:yaml") == "yaml"


@pytest.mark.parametrize(
    "code",
    [
        "import yaml\ndef run(): pass",
        "def run():\n    import yaml",
        "from yaml import safe_load\ndef run(): safe_load('a')",
        "import importlib\ndef run():\n    importlib.import_module('yaml.nodes')",
    ],
)
def test_an_installed_package_counts_by_its_version_also_when_it_was_imported_before(user, code):
    import yaml

    trace = user.run(code)
    assert trace.reads["package:pyyaml"] == yaml.__version__
    assert not any("yaml" in name for name in files_in(trace))


def test_a_package_that_is_imported_now_and_what_it_imports_count(user, tmp_path):
    code = "import subprocess, sys\ndef run():\n    import trace_probe_package"
    place = tmp_path / "site-packages"
    info = place / "trace_probe_package-7.dist-info"
    info.mkdir(parents=True)
    (place / "trace_probe_package.py").write_text("X = 1\n")
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: trace-probe-package\nVersion: 7\n")
    (info / "top_level.txt").write_text("trace_probe_package\n")
    script = textwrap.dedent(
        f"""
        import sys; sys.path.insert(0, {str(Path(builder.__file__).parents[1])!r})
        from pathlib import Path
        from builder.incremental.fingerprint import Fingerprints
        from builder.incremental.tracing import tracing
        from builder.usercode import call, user_code
        folder = Path({str(user.folder)!r})
        baseline = frozenset(name.split(".")[0] for name in sys.modules)
        with user_code(folder), tracing(Fingerprints(folder), folder, (), baseline) as trace:
            call("model.py:run", {{}}, folder, what="test")
        print(trace.reads)
        """
    )
    user.write("model.py", code)
    environment = {**os.environ, "PYTHONPATH": str(place)}
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True)
    assert "'package:trace-probe-package': '7'" in done.stdout
    assert "file:/" not in done.stdout


# -- folders -------------------------------------------------------------------------------------------------------

LISTERS = {
    "os.listdir": "import os\ndef run(): return os.listdir(HERE / 'data')",
    "os.scandir": "import os\ndef run(): return [e.name for e in os.scandir(HERE / 'data')]",
    "os.walk": "import os\ndef run(): return list(os.walk(HERE / 'data'))",
    "glob": "import glob\ndef run(): return glob.glob(str(HERE / 'data/*.txt'))",
    "Path.glob": "def run(): return list((HERE / 'data').glob('*.txt'))",
    "Path.iterdir": "def run(): return list((HERE / 'data').iterdir())",
}


@pytest.mark.parametrize("how", LISTERS)
def test_a_folder_that_is_listed_counts_by_its_entries_not_by_their_content(user, how):
    user.write("data/a.txt")
    trace = user.run(HERE + LISTERS[how])
    assert "data" in {key.partition(":")[2] for key in trace.reads if key.startswith("folder:")}
    assert files_in(trace) == {"model.py"}
    before = trace.reads["folder:data"]
    user.write("data/a.txt", "changed")
    (user.folder / "data" / "__pycache__").mkdir()
    assert user.fingerprints().of("folder:data") == before
    user.write("data/b.txt")
    assert user.fingerprints().of("folder:data") != before


@pytest.mark.parametrize("how", ["an import", "importlib.metadata", "pkgutil"])
def test_what_the_import_system_lists_is_no_dependency(user, how):
    codes = {
        "an import": "def run():\n    import sibling",
        "importlib.metadata": "import importlib.metadata\ndef run(): importlib.metadata.version('numpy')",
        "pkgutil": "import pkgutil, sys\ndef run(): list(pkgutil.iter_modules(sys.path[:1]))",
    }
    user.write("sibling.py", "X = 1\n")
    trace = user.run(codes[how])
    assert [key for key in trace.reads if key.startswith("folder:")] == []


def test_what_builds_write_into_a_listed_folder_does_not_count(user):
    trace = user.run(HERE + "import os\ndef run(): return list(os.walk(HERE))")
    (user.folder / "model_repository/m").mkdir(parents=True)
    (user.folder / ".build").mkdir()
    assert user.fingerprints().of("folder:.") == trace.reads["folder:."]


# -- questions -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "question",
    [
        "(HERE / 'tuned.pt').exists()",
        "os.path.exists(HERE / 'tuned.pt')",
        "os.path.isfile(f'{HERE}/tuned.pt')",
        "(HERE / 'tuned.pt').is_file()",
        "os.access(HERE / 'tuned.pt', os.R_OK)",
    ],
)
def test_whether_a_file_is_there_counts_when_it_is_asked(user, question):
    code = HERE + f"import os\ndef run(): return {question}"
    trace = user.run(code)
    assert user.result is False
    assert trace.reads["there:tuned.pt"] == ABSENT
    user.write("tuned.pt")
    assert user.fingerprints().of("there:tuned.pt") == "file"
    trace = user.again()
    assert user.result is True
    assert trace.reads["there:tuned.pt"] == "file"
    assert not trace.changed


def test_a_missing_file_that_is_opened_and_appears_later_counts(user):
    code = HERE + "def run():\n    try: return open(HERE / 'a.txt').read()\n    except OSError: return None"
    trace = user.run(code)
    assert trace.reads["file:a.txt"] == ABSENT
    path = user.write("a.txt")
    assert user.fingerprints().of("file:a.txt") == sha(path)


def test_the_places_that_the_folder_is_in_do_not_count(user):
    trace = user.run(
        "from pathlib import Path\ndef run(): return [p.exists() for p in Path(__file__).resolve().parents]"
    )
    assert [key for key in trace.reads if key.startswith("there:")] == []


def test_a_variable_that_the_users_code_reads_counts(user, monkeypatch):
    monkeypatch.setenv("MODEL_SIZE", "large")
    monkeypatch.setenv("OTHER", "x")
    reads = "os.environ['MODEL_SIZE'], os.getenv('MISSING'), 'ASKED' in os.environ"
    code = f"import os\ndef run():\n    dict(os.environ); {{**os.environ}}; os.environ.copy(); return {reads}"
    trace = user.run(code)
    assert user.result == ("large", None, False)
    assert {key for key in trace.reads if key.startswith("env:")} == {"env:MODEL_SIZE", "env:MISSING", "env:ASKED"}
    assert "large" not in str(trace.reads)  # it may be a secret
    monkeypatch.setenv("MODEL_SIZE", "small")
    assert user.fingerprints().of("env:MODEL_SIZE") != trace.reads["env:MODEL_SIZE"]


def test_a_variable_that_the_code_sets_itself_counts_as_it_came(user, monkeypatch):
    monkeypatch.delenv("SET_HERE", raising=False)
    trace = user.run("import os\ndef run():\n    os.environ['SET_HERE'] = '1'; os.environ['SET_HERE']")
    monkeypatch.delenv("SET_HERE")
    assert trace.reads["env:SET_HERE"] == ABSENT


def test_what_our_own_and_other_packages_ask_does_not_count(user):
    code = "import numpy, subprocess\ndef run():\n    numpy.show_config(); subprocess.run(['true'], env=None)"
    reads = user.run(code).reads
    assert {key.partition(":")[0] for key in reads} == {"file", "module", "package"}


def test_a_question_with_a_wrong_argument_fails_as_it_always_does(user):
    code = "import os\ndef run():\n    try: os.stat(1.5)\n    except TypeError as e: return str(e)\n"
    user.run(code)
    assert "float" in user.result
    user.run("import os, shutil\ndef run():\n    shutil.copystat(__file__, __file__); os.stat(0); return os.stat")
    assert user.result is not os.stat


def test_the_folder_it_runs_in_counts_where_relative_paths_are_read(user, tmp_path, monkeypatch):
    user.write("a.txt")
    monkeypatch.chdir(user.folder)
    assert user.run("def run(): open('a.txt').close()").reads["cwd:"] == str(user.folder)
    assert "cwd:" not in user.run(HERE + "def run(): open(HERE / 'a.txt').close()").reads


# -- what is no dependency -----------------------------------------------------------------------------------------

OWN = {
    "written and read back": "p = HERE / 'out.txt'; p.write_text('x'); p.read_text()",
    "appended": "open(HERE / 'log.txt', 'a').close()",
    "a temporary file": "f = tempfile.NamedTemporaryFile(); open(f.name).close()",
    "a temporary folder": "d = tempfile.mkdtemp(dir=HERE); open(d + '/x', 'w'); os.listdir(d); shutil.rmtree(d)",
    "moved into place": "open(HERE / 't', 'w').close(); os.replace(HERE / 't', HERE / 'u'); open(HERE / 'u').close()",
    "a lock file": "os.close(os.open(HERE / 'x.lock', os.O_RDWR | os.O_CREAT))",
    "a database in memory": "sqlite3.connect(':memory:'); sqlite3.connect('file:x?mode=memory', uri=True)",
    "the system": "open('/proc/self/status').read(); open('/etc/hostname').read(); os.path.exists('/usr/bin/env')",
    "the interpreter": "open(json.__file__).read()",
    "the environment": "open(os.path.join(sys.prefix, 'pyvenv.cfg')).read()",
    "our own build folder": "open(HERE / '.build' / 'x').read()",
    "the repository": "open(HERE / 'model_repository' / 'x').read(); os.listdir(HERE / 'model_repository')",
    "byte code": "open(HERE / '__pycache__' / 'x.pyc').read()",
    "a device": "open('/dev/null').read()",
}


@pytest.mark.parametrize("how", OWN)
def test_what_is_its_own_or_not_the_users_is_no_dependency(user, how):
    for name in (".build/x", "model_repository/x", "__pycache__/x.pyc"):
        user.write(name)
    names = "json, os, shutil, sqlite3, sys, tempfile"
    user.folder.joinpath("quiet.py").write_text("")
    trace = user.run(f"{HERE}import {names}\ndef run():\n    {OWN[how]}\n")
    assert [key for key in trace.reads if not key.startswith("module:")] == ["file:model.py"]
    assert not trace.changed


def test_a_file_that_a_c_library_writes_is_no_dependency(user, monkeypatch, until):
    monkeypatch.setattr(tracing_module, "_TICK_S", 0.02)
    code = C_LIBRARY.replace("HERE / name), 0)", "HERE / name), os.O_CREAT | os.O_RDWR, 0o600)").replace(
        "    os.close", "    libc.write(descriptor, b'x', 1)\n    os.close"
    )
    made = user.write("model.py", HERE + code).stat().st_ctime
    until(lambda: time.time() > made + 0.1)
    trace = user.again(name="made.bin")
    assert files_in(trace) == {"model.py"}
    assert not trace.changed


def test_a_file_of_a_virtual_environment_inside_the_folder_is_none_of_the_users(user, monkeypatch):
    user.write(".venv/pyvenv.cfg")
    user.write(".venv/bin/tool")
    monkeypatch.setattr(sys, "prefix", str(user.folder / ".venv"))
    trace = user.run(HERE + "def run():\n    open(HERE / '.venv/bin/tool').close()")
    assert files_in(trace) == {"model.py"}


def test_a_cache_that_the_code_makes_where_it_was_missing_counts_as_it_is_afterwards(user):
    code = HERE + textwrap.dedent("""
        def run():
            path = HERE / "cache.txt"
            if not path.exists():
                path.write_text("made")
            return path.read_text()
        """)
    trace = user.run(code)
    assert trace.reads["file:cache.txt"] == sha(user.folder / "cache.txt")
    assert not trace.changed
    again = user.again()
    assert again.reads == trace.reads


# -- changes while it runs -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("reads", "changes"),
    [
        ("(HERE / 'a.txt').read_text()", "write('a.txt', 'longer than before')"),
        ("(HERE / 'a.txt').read_text()", "os.replace(HERE / 'b.txt', HERE / 'a.txt')"),
        ("(HERE / 'a.txt').read_text()", "os.unlink(HERE / 'a.txt')"),
        ("(HERE / 'a.txt').read_text()", "os.unlink(HERE / 'a.txt'); os.symlink('b.txt', HERE / 'a.txt')"),
        ("(HERE / 'link.txt').read_text()", "os.unlink(HERE / 'link.txt'); os.symlink('b.txt', HERE / 'link.txt')"),
        ("(HERE / 'missing.txt').exists()", "write('missing.txt', 'x')"),
        ("os.path.isfile(HERE / 'a.txt')", "os.unlink(HERE / 'a.txt')"),
    ],
)
def test_what_changes_while_it_runs_makes_the_result_not_kept(user, reads, changes):
    """Another process changes it, so that it is not the code's own doing."""
    user.write("a.txt")
    user.write("b.txt", "another one, untouched")
    (user.folder / "link.txt").symlink_to("a.txt")
    script = f"import os\nfrom pathlib import Path\nHERE = Path({str(user.folder)!r})\n"
    script += f"write = lambda name, text: (HERE / name).write_text(text)\n{changes}\n"
    code = f"{HERE}import os, subprocess, sys\ndef run(script):\n    {reads}\n"
    trace = user.run(code + "    subprocess.run([sys.executable, '-c', script], check=True)", script=script)
    assert len(trace.changed) == 1
    assert trace.changed[0] in changes


def test_a_module_that_changes_while_it_runs_makes_the_result_not_kept(user, until):
    path = user.write("helper.py", "X = 1\n")

    def change():
        path.write_text("X = 12345\n")
        return path.stat().st_ctime > began

    user.write("model.py", "import helper\ndef run(change): change()")
    began = path.stat().st_ctime
    trace = user.again(change=lambda: until(change))
    assert trace.changed == ("helper.py",)


def test_a_folder_that_gets_an_entry_while_it_is_read_makes_the_result_not_kept(user, until):
    (user.folder / "data").mkdir()
    began = (user.folder / "data").stat().st_ctime
    more = (
        "import os, subprocess, sys\nfrom pathlib import Path\nn = 0\n"
        f"data = Path({str(user.folder / 'data')!r})\n"
        f"while data.stat().st_ctime <= {began} + 0.05:\n"
        "    n += 1; (data / str(n)).touch(); (data / str(n)).unlink()\n"
        "(data / 'new').touch()"
    )
    code = HERE + "import os, subprocess, sys\ndef run(more):\n    os.listdir(HERE / 'data')\n"
    trace = user.run(code + "    subprocess.run([sys.executable, '-c', more], check=True)", more=more)
    assert trace.changed == ("data",)


def test_a_file_that_changed_between_two_steps_makes_the_second_result_not_kept(user):
    """Fingerprints are taken once: the second step read what the first one's fingerprint does not tell."""
    path = user.write("a.txt", "one")
    user.write("model.py", HERE + "def run(): return (HERE / 'a.txt').read_text()")
    now = user.fingerprints()
    assert not user.again(fingerprints=now).changed
    path.write_text("another")
    trace = user.again(fingerprints=now)
    assert user.result == "another"
    assert trace.changed == ("a.txt",)


def test_an_exception_of_the_users_ends_the_trace(user):
    user.write("model.py", "def run(): raise KeyError('x')")
    with pytest.raises(Exception, match="raised"):
        user.again()
    assert tracing_module._active == []
    assert os.stat.__module__ == "posix"


def test_a_kernel_or_c_library_without_fanotify_is_no_error(user, monkeypatch):
    class NoLibrary:
        def __init__(self, *args, **kwargs):
            raise OSError("no such library")

    monkeypatch.setattr("builder.incremental.watching.ctypes.CDLL", NoLibrary)
    watch = Watch(user.folder)
    watch.end()
    assert not watch.is_complete


def test_too_many_files_for_the_kernel_to_tell_are_noticed(user):
    watch = Watch(user.folder)
    if not watch.is_complete:
        pytest.skip("fanotify is not to be had here")
    import struct

    watch._take(struct.pack("IBBHQii", 24, 3, 0, 24, 0x4000, -1, 0))
    assert not watch.is_complete
    watch.end()
