"""What ``env`` shows: Docker Machine's texts, letter by letter, and values that no shell takes for something else."""

from __future__ import annotations

import pytest

from pytest_machine.cli.shells import detect_shell, render_env
from pytest_machine.client_environment import extended
from pytest_machine.errors import UsageError

COMMAND = ("docker-machine", "env", "default")
SHOWN = {
    "bash": 'export K="V"\n# Run this command to configure your shell: \n# eval $(docker-machine env default)\n',
    "fish": 'set -gx K "V";\n# Run this command to configure your shell: \n# eval (docker-machine env default)\n',
    "powershell": '$Env:K = "V"\n# Run this command to configure your shell: \n'
    "# & docker-machine env default | Invoke-Expression\n",
    "cmd": "SET K=V\nREM Run this command to configure your shell: \n"
    "REM \t@FOR /f \"tokens=*\" %i IN ('docker-machine env default') DO @%i\n",
    "tcsh": 'setenv K "V";\n: Run this command to configure your shell: \n: eval `docker-machine env default`\n',
    "emacs": '(setenv "K" "V")\n;; Run this command to configure your shell: \n'
    ';; (with-temp-buffer (shell-command "docker-machine env default" (current-buffer)) (eval-buffer))\n',
}
UNSET = {
    "bash": "unset K",
    "fish": "set -e K;",
    "powershell": "Remove-Item Env:\\\\K",
    "cmd": "SET K=",
    "tcsh": "unsetenv K;",
    "emacs": '(setenv "K" nil)',
}


@pytest.mark.parametrize("shell", SHOWN)
def test_as_docker_machine_shows_it(shell: str) -> None:
    assert render_env([("K", "V")], shell=shell, command=COMMAND) == SHOWN[shell]
    unset = render_env([("K", "")], shell=shell, command=COMMAND, unset=True)
    assert unset.splitlines()[0] == UNSET[shell]


@pytest.mark.parametrize("shell", ["sh", "zsh", "ksh", "dash", "/bin/bash", "bash.exe", "-bash"])
def test_others_are_spoken_to_as_bash(shell: str) -> None:
    assert render_env([("K", "V")], shell=shell, command=COMMAND) == SHOWN["bash"]


@pytest.mark.parametrize("program", ["/opt/my tools/docker-machine", "C:\\tools\\docker-machine.exe"])
def test_a_program_whose_place_has_spaces_is_quoted(program: str) -> None:
    assert f'eval $("{program}" env)' in render_env([], shell="bash", command=[program, "env"])


@pytest.mark.parametrize("value", ['a"b', "$(touch x)", "`id`", "\\", "$HOME", "a b", "'"])
@pytest.mark.parametrize("shell", ["bash", "sh"])
def test_a_value_is_only_a_value(shell: str, value: str, tmp_path: object) -> None:
    """Told by a real shell."""
    import shutil
    import subprocess

    if (program := shutil.which(shell)) is None:
        pytest.skip(f"no {shell} here")
    text = render_env([("K", value)], shell=shell, command=COMMAND)
    done = subprocess.run(
        [program, "-c", f'{text}\nprintf %s "$K"'], capture_output=True, text=True, check=True, cwd=str(tmp_path)
    )
    assert done.stdout == value


@pytest.mark.parametrize(
    ("shell", "shown"),
    [
        ("fish", 'set -gx K "\\$x \\"";'),
        ("powershell", '$Env:K = "`$x `""'),
        ("tcsh", 'setenv K "\\$x \\"";'),
        ("emacs", '(setenv "K" "$x \\"")'),
    ],
)
def test_what_is_escaped_elsewhere(shell: str, shown: str) -> None:
    assert render_env([("K", '$x "')], shell=shell, command=COMMAND).splitlines()[0] == shown


def test_cmd_does_not_run_what_is_in_a_value() -> None:
    assert render_env([("K", "a&b|c")], shell="cmd", command=COMMAND).splitlines()[0] == "SET K=a^&b^|c"


@pytest.mark.parametrize(
    ("environ", "windows", "shell"),
    [
        ({"SHELL": "/usr/bin/fish"}, False, "fish"),
        ({"SHELL": "C:\\Program Files\\Git\\bin\\bash.exe"}, True, "bash"),
        ({}, True, "cmd"),
        ({"PSModulePath": "C:\\Users\\me\\Documents\\WindowsPowerShell\\Modules"}, True, "powershell"),
    ],
)
def test_whose_shell(environ: dict[str, str], windows: bool, shell: str) -> None:
    assert detect_shell(environ, windows=windows) == shell


def test_a_shell_that_nothing_tells() -> None:
    with pytest.raises(UsageError, match="Error: Unknown shell") as caught:
        detect_shell({})
    assert caught.value.hint == "docker-machine env --shell bash"


EXCEPTIONS: list[tuple[dict[str, str], dict[str, str]]] = [
    ({}, {"NO_PROXY": "10.0.0.2"}),
    ({"NO_PROXY": "a,b"}, {"NO_PROXY": "a,b,10.0.0.2"}),
    ({"no_proxy": "a"}, {"no_proxy": "a,10.0.0.2"}),
    ({"no_proxy": "a", "NO_PROXY": "b"}, {"no_proxy": "a,10.0.0.2"}),
    ({"no_proxy": "", "NO_PROXY": "b"}, {"NO_PROXY": "b,10.0.0.2"}),
    ({"NO_PROXY": "10.0.0.2,b"}, {"NO_PROXY": "10.0.0.2,b"}),
    ({"NO_PROXY": "10.0.0.20"}, {"NO_PROXY": "10.0.0.20,10.0.0.2"}),
    ({"NO_PROXY": "*"}, {"NO_PROXY": "*"}),
    ({"no_proxy": " * ", "NO_PROXY": "a"}, {"no_proxy": "*"}),
]


@pytest.mark.parametrize(("environ", "expected"), EXCEPTIONS)
def test_no_proxy(environ: dict[str, str], expected: dict[str, str]) -> None:
    assert dict([extended(environ, "10.0.0.2")]) == expected


@pytest.mark.parametrize(("environ", "expected"), EXCEPTIONS)
@pytest.mark.parametrize("shell", ["sh", "bash", "dash", "zsh", "ksh", "fish", "tcsh"])
def test_no_proxy_in_a_real_shell(shell: str, environ: dict[str, str], expected: dict[str, str]) -> None:
    """A program that the shell starts afterwards has the address, and the exceptions of the user."""
    import os
    import shutil
    import subprocess
    import sys

    if (program := shutil.which(shell)) is None:
        pytest.skip(f"no {shell} here")
    text = render_env([extended(environ, "10.0.0.2")], shell=shell, command=COMMAND)
    lines = [line for line in text.splitlines() if not line.startswith(("#", ":"))]
    show = "import os; print({k: v for k, v in os.environ.items() if k.lower() == 'no_proxy'})"
    script = "\n".join([*lines, f'{sys.executable} -c "{show}"'])
    clean = {name: value for name, value in os.environ.items() if name.lower() != "no_proxy"}
    done = subprocess.run([program, "-c", script], env={**clean, **environ}, capture_output=True, text=True, check=True)
    shown: dict[str, str] = eval(done.stdout)  # what the line above printed
    assert shown == {**environ, **expected}


@pytest.mark.parametrize("shell", ["pwsh", "pwsh.exe", "C:\\x\\pwsh.exe", "PowerShell"])
def test_powershell_by_its_other_names(shell: str) -> None:
    assert render_env([("K", "V")], shell=shell, command=COMMAND) == SHOWN["powershell"]


@pytest.mark.parametrize("shell", ["never-heard-of", "nologin", "", "false", "nu", "\x1b[2J"])
@pytest.mark.parametrize("unset", [True, False])
def test_a_shell_that_is_not_known_is_refused(shell: str, unset: bool) -> None:
    with pytest.raises(UsageError) as caught:
        render_env([("K", "V")], shell=shell, command=COMMAND, unset=unset)
    assert caught.value.message.startswith("The shell '")
    assert "'pwsh'" in str(caught.value)
    assert "\x1b" not in str(caught.value)


@pytest.mark.parametrize("value", ["a  b", "a*", "a\nb", "[a]"])
def test_the_hint_has_quotes_where_they_matter(value: str, tmp_path: object) -> None:
    import shutil
    import subprocess

    text = render_env([("K", value)], shell="bash", command=COMMAND)
    assert text.endswith('# eval "$(docker-machine env default)"\n')
    if bash := shutil.which("bash"):
        script = (
            f'docker-machine() {{ cat <<\'EOF\'\n{text}EOF\n}}\neval "$(docker-machine env default)"; printf %s "$K"'
        )
        done = subprocess.run([bash, "-c", script], capture_output=True, text=True, check=True, cwd=str(tmp_path))
        assert done.stdout == value


def test_a_line_break_is_written_or_refused() -> None:
    lines = {
        shell: render_env([("K", "a\nb")], shell=shell, command=COMMAND).splitlines()[0] for shell in ("fish", "pwsh")
    }
    assert lines == {"fish": 'set -gx K "a"\\n"b";', "pwsh": '$Env:K = "a`nb"'}
    for shell in ("cmd", "tcsh"):
        with pytest.raises(UsageError, match="line break"):
            render_env([("K", "a\nb")], shell=shell, command=COMMAND)
