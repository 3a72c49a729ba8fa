"""The command `cornu`: what the doctor finds, says and leaves alone."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

import cornu
from cornu.cli import main
from cornu.engines import probe, registry
from cornu.inspect import doctor


@pytest.fixture
def broken(monkeypatch, tmp_path):
    """An engine whose module does what it is told while it is imported, in the process that asks it."""

    def make(code):
        (tmp_path / "cornu_broken_engine.py").write_text(code)
        known = {"broken": ("cornu_broken_engine", "numpy", None)}
        monkeypatch.setattr(
            probe,
            "_CODE",
            f"import sys; sys.path.insert(0, {str(tmp_path)!r}); from cornu.engines import registry; "
            f"registry.ENGINES.update({known!r}); {probe._CODE}",
        )
        monkeypatch.setattr(registry, "ENGINES", {**registry.ENGINES, **known})
        return lambda timeout=60: probe.probe("broken", timeout)

    return make


def test_the_doctor_lists_engines_devices_and_settings(monkeypatch, capsys):
    """Every engine has a line; installed ones name their devices; what the engine adds is shown."""
    asked = []

    def ask(name, timeout):
        asked.append((name, timeout))
        return {"devices": [f"{name}:0"], "details": {"linker": "c"} if name == "jax" else {}, "seconds": 0.5}

    monkeypatch.setattr(doctor, "probe", ask)
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert main(["doctor", "--timeout", "7"]) == 0
    text = capsys.readouterr().out
    assert asked == [(name, 7.0) for name in registry.available()]
    for name in registry.engines():
        assert f"\n  {name}" in text
    assert "jax:0  (0.5 s to import)" in text and "jax: linker c" in text
    assert "OMP_NUM_THREADS=3" in text and "cores" in text and "pillow" in text


def test_what_is_missing_comes_with_its_command(monkeypatch, capsys):
    versions = {name: None if name in ("torch", "onnxruntime", "jax") else "1.0" for name in registry.engines()}
    monkeypatch.setattr(doctor, "engine_versions", lambda: versions)
    monkeypatch.setattr(doctor, "probe", lambda name, timeout: {"problem": "ImportError: libx.so", "seconds": 0.1})
    assert main(["doctor"]) == 0
    text = capsys.readouterr().out
    for command in ("pip install 'cornu[torch]'", "pip install 'cornu[onnx]'", "pip install jax"):
        assert command in text
    assert "cannot be used: ImportError: libx.so" in text


def test_extras(monkeypatch):
    """Those of the distribution, with what they take in; conditional requirements are not missed."""

    class About:
        def get_all(self, what):
            return {
                "Provides-Extra": ["one", "two", "all", "none"],
                "Requires-Dist": [
                    "numpy>=1",
                    'pytest>=8; extra == "one"',
                    "no-such-thing[x]>=1 ; extra == 'two'",
                    'no-such-windows; sys_platform == "win32" and extra == "one"',
                    'cornu[one,two]; extra == "all"',
                ],
            }[what]

    monkeypatch.setattr(doctor.importlib.metadata, "metadata", lambda name: About())
    found = doctor._extras()
    assert (
        found["one"]["missing"] == [] and list(found["one"]["present"]) == ["pytest"] and "install" not in found["one"]
    )
    assert found["two"] == {"present": {}, "missing": ["no-such-thing"], "install": "pip install 'cornu[two]'"}
    assert list(found["all"]["present"]) == ["pytest"] and found["all"]["missing"] == ["no-such-thing"]
    assert found["none"] == {"present": {}, "missing": []}


def test_json_and_the_default_engine(monkeypatch, capsys, tmp_path):
    monkeypatch.setenv("CORNU_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(registry, "_default", [None])
    for variables, engine, because in (
        ({}, "jax", "nothing else was chosen"),
        ({"KERAS_BACKEND": "torch"}, "torch", "KERAS_BACKEND=torch"),
        ({"KERAS_BACKEND": "torch", "CORNU_ENGINE": "auto"}, "auto", "CORNU_ENGINE=auto"),
        ({"CORNU_ENGINE": "jaxx"}, "none", "did you mean 'jax'?"),
    ):
        for name in ("CORNU_ENGINE", "KERAS_BACKEND"):
            monkeypatch.delenv(name, raising=False)
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        assert main(["doctor", "--quick", "--json"]) == 0
        found = json.loads(capsys.readouterr().out)
        assert found["default"]["engine"] == engine and because in found["default"]["because"]
    assert found["cache"] == {"directory": str(tmp_path), "auto_records": 0, "compiled": None}
    assert found["engines"]["numpy"]["version"].count(".") >= 1 and "devices" not in found["engines"]["numpy"]


def test_quick_imports_no_engine():
    """Versions come from what installers left."""
    code = (
        "import sys, cornu.cli; cornu.cli.main(['doctor', '--quick']); "
        "print([n for n in ('jax', 'torch', 'tensorflow', 'pytensor', 'onnxruntime') if n in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.splitlines()[-1] == "[]"


def test_as_a_module():
    found = subprocess.run([sys.executable, "-m", "cornu", "--version"], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == f"cornu {cornu.__version__}"
    found = subprocess.run([sys.executable, "-m", "cornu", "doctor", "--quick"], capture_output=True, text=True)
    assert found.returncode == 0 and found.stdout.startswith("Cornu ")


@pytest.mark.parametrize("arguments", [[], ["doctr"], ["doctor", "--timeout", "0"], ["doctor", "--timeout", "soon"]])
def test_wrong_arguments(arguments, capsys):
    with pytest.raises(SystemExit) as raised:
        main(arguments)
    assert raised.value.code == 2 and "usage: cornu" in capsys.readouterr().err


# ---------------------------------------------------------------- engines that cannot be imported


def test_an_engine_answers_from_its_own_process():
    found = probe.probe("numpy")
    assert found["devices"] == ["cpu"] and found["details"] == {} and found["seconds"] > 0


def test_an_engine_that_raises(broken):
    found = broken("print('noise'); raise OSError('libcuda.so:\\n cannot open')")()
    assert found["problem"] == "OSError: libcuda.so: cannot open"


def test_an_engine_that_takes_its_process_down(broken):
    found = broken("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)")()
    assert found["problem"] == "importing it ended the process by signal SIGSEGV"
    found = broken("import os, sys; print('last words', file=sys.stderr, flush=True); os._exit(3)")()
    assert found["problem"] == "importing it ended the process with code 3: last words"


@pytest.mark.skipif(not hasattr(os, "killpg"), reason="process groups")
def test_an_engine_that_hangs_is_ended_with_its_children(broken, tmp_path):
    code = (
        "import subprocess, sys, time\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])\n"
        f"open({str(tmp_path / 'child')!r}, 'w').write(str(child.pid))\n"
        "time.sleep(60)\n"
    )
    start = time.monotonic()
    found = broken(code)(5)
    assert found["problem"] == "importing it took more than 5 s" and time.monotonic() - start < 30
    child = int((tmp_path / "child").read_text())
    for _ in range(100):
        try:
            with open(f"/proc/{child}/stat") as file:
                if file.read().rpartition(")")[2].split()[0] == "Z":
                    break
            os.kill(child, 0)
        except (OSError, ProcessLookupError):
            break
        time.sleep(0.05)
    else:
        os.kill(child, signal.SIGKILL)
        pytest.fail("the child goes on")
