"""The Vagrantfile is code that few of us ever run: Vagrant itself checks it, and what it promises is read back."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parents[2]

# Put into the configuration as its last lines, this prints what the lines before came to.
REPORT = """
  config.vm.networks.each { |kind, options| puts "#{kind} #{options[:host_ip]}:#{options[:host]}" }
  config.vm.provisioners.each { |provisioner| puts provisioner.config.inline }
"""

pytestmark = pytest.mark.skipif(not shutil.which("vagrant"), reason="no vagrant; scripts/provision.sh vm installs it")


def validate(directory: Path, home: Path) -> str:
    environment = {"VAGRANT_HOME": f"{home}", "VAGRANT_DOTFILE_PATH": f"{home}/dot", "VAGRANT_CHECKPOINT_DISABLE": "1"}
    command = ["vagrant", "validate", "--ignore-provider"]
    done = subprocess.run(command, cwd=directory, env=os.environ | environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_vagrant_accepts_it(tmp_path: Path) -> None:
    assert "validated successfully" in validate(CHECKOUT, tmp_path)


def test_ports_on_loopback_only_and_the_common_provisioning_script(tmp_path: Path) -> None:
    body, end = (CHECKOUT / "Vagrantfile").read_text().rstrip().rsplit("\n", maxsplit=1)
    assert end == "end"
    copy = tmp_path / "copy"
    copy.mkdir()
    (copy / "Vagrantfile").write_text(f"{body}\n{REPORT}{end}\n")
    said = validate(copy, tmp_path).splitlines()
    ports = {line for line in said if line.startswith("forwarded_port")}  # Vagrant reads the file more than once
    assert ports == {"forwarded_port 127.0.0.1:8080", "forwarded_port 127.0.0.1:8081"}
    assert "/vagrant/scripts/provision.sh build run" in said
