"""The checks of hal0 itself and of what its manifests ask of the machine."""

from __future__ import annotations

from collections.abc import Mapping

from hal0.core.check import Check, Checks, Line, counted
from hal0.core.facts import Known, Unknown, known
from hal0.core.findings import Certificate, Declared, Findings, Secret, SlotNeeds, Trust, UnitState
from hal0.core.quantity import show_duration

_SOON = 14 * 86400.0
_OTHERS = 0o077
_ADOPT = "hal0 slot adopt NAME takes a drop-in over; a unit file has to be moved away"


def config_checks(found: Findings) -> Checks:
    """Yield the checks, each before those that rest on it."""
    for part in (_units, _boot, _daemon, _manifests, _git, _slots, _secrets, _trust, _certificates):
        yield from part(found)


def _units(found: Findings) -> Checks:
    line, units = Line("hal0", "units"), found.units
    if not found.installed.needs_podman:
        return
    if isinstance(units, Unknown):
        yield line.unknown(units)
    elif wrong := [_unit(line, path, state) for path, state in units.value.items() if state is not UnitState.CURRENT]:
        yield from wrong
    else:
        yield line.ok("installed, hal0's own, and as this version ships them")


def _unit(line: Line, path: str, state: UnitState) -> Check:
    match state:
        case UnitState.ABSENT:
            return line.fail(f"{path} is not there", "hal0 install")
        case UnitState.OLDER:
            return line.warn(f"{path} is not as this version ships it", "hal0 install")
        case UnitState.MASKED:
            return line.fail(f"{path} masks the unit", f"systemctl unmask {path.rpartition('/')[2]}")
        case _:
            return line.fail(f"{path} does not carry hal0's mark: its slot is left alone", _ADOPT)


def _boot(found: Findings) -> Checks:
    is_absent = UnitState.ABSENT in (known(found.units) or {}).values()
    if found.installed.needs_podman and found.enabled == Known(value=False) and not is_absent:
        mend = found.installed.systemctl("enable hal0.target hal0-api.service")
        yield Line("hal0", "boot").warn("the daemon does not start with the machine", mend)


def _daemon(found: Findings) -> Checks:
    line, answers = Line("hal0", "daemon"), found.daemon
    systemctl = found.installed.systemctl
    if isinstance(answers, Unknown):
        yield line.unknown(answers, "run this as the daemon's user")
    elif answers.value:
        yield line.ok("answers on its socket")
    elif found.enabled == Known(value=True):
        yield line.fail("it is installed, and does not answer", systemctl("status hal0-api.service") + " says why")
    elif found.installed.needs_podman:
        yield line.warn("does not run: nothing is kept as declared, and nothing serves /v1", "hal0 install")
    else:
        yield line.warn("does not run: no slot runs, and nothing serves /v1", "hal0 serve")


def _manifests(found: Findings) -> Checks:
    line, declared = Line("manifests", "valid"), found.declared
    if isinstance(declared, Unknown):
        yield line.unknown(declared, "name the folder of your manifests: hal0 doctor PATH")
        return
    root, problems = declared.value.root, declared.value.problems
    if problems:
        text = f"{root}: {counted(problems, 'problem')}: nothing new is applied"
        yield line.fail(text, f"hal0 validate {root}")
    else:
        yield line.ok(f"{root}: {counted(len(declared.value.slots), 'slot')}")


def _git(found: Findings) -> Checks:
    line, declared, revision = Line("manifests", "git"), known(found.declared), found.revision
    if declared is None:
        return
    if isinstance(revision, Unknown):
        yield line.unknown(revision)
    elif revision.value.endswith("-dirty"):
        yield line.ok(f"at {revision.value}: some files are not committed")
    elif revision.value:
        yield line.ok(f"at {revision.value}")
    else:
        mend = f"git -C {declared.root} init, and commit: each change then has an author and a way back"
        yield line.warn(f"{declared.root} is in no repository, or has no commit", mend)


def _slots(found: Findings) -> Checks:
    """Yield what is to be said of ports, models and devices: each that is wrong, or one line that says they are not."""
    declared = known(found.declared)
    if declared is None:
        return
    yield from _ports(found, declared)
    yield from [check for slot in declared.slots if (check := _model(slot))] or [_all_models(declared)]
    yield from (_device(slot) for slot in declared.slots if slot.missing_devices)


def _ports(found: Findings, declared: Declared) -> Checks:
    line, taken = Line("manifests", "ports"), found.taken
    if isinstance(taken, Unknown):
        yield line.unknown(taken)
        return
    wrong = [*_listen(line, found, declared, taken.value), *_slot_ports(line, declared, taken.value)]
    yield from wrong or [
        line.ok(f"hal0 has {declared.listen[1]}, and nobody else has those of {counted(len(declared.slots), 'slot')}")
    ]


def _listen(line: Line, found: Findings, declared: Declared, taken: Mapping[int, str]) -> Checks:
    """Yield that a stranger has hal0's own port, once no daemon is known to have it."""
    port = declared.listen[1]
    if port in taken and found.daemon == Known(value=False):
        yield line.fail(f"hal0's {port} is taken{_by(taken[port])}", "stop that, or give `listen` another port")


def _slot_ports(line: Line, declared: Declared, taken: Mapping[int, str]) -> Checks:
    for slot in declared.slots:
        if slot.port in taken and slot.runs is False:
            text = f"slot {slot.name} does not run, and its {slot.port} is taken{_by(taken[slot.port])}"
            yield line.fail(text, "stop that, or give the slot another `port`")


def _model(slot: SlotNeeds) -> Check | None:
    line = Line("manifests", "models")
    if isinstance(slot.model, Unknown):
        return line.unknown(slot.model, f"slot {slot.name} needs it: let hal0's user read the folder")
    if slot.model.value:
        return None
    text = f"slot {slot.name}: there is no {slot.model_path}"
    return line.ok(f"{text}; it is fetched when the slot needs it") if slot.is_fetched else line.fail(text, slot.mend)


def _all_models(declared: Declared) -> Check:
    files = len({slot.model_path for slot in declared.slots})
    return Line("manifests", "models").ok(f"{counted(files, 'file')} of slots: none is missing")


def _device(slot: SlotNeeds) -> Check:
    devices = ", ".join(slot.missing_devices)
    line = Line("manifests", "devices")
    if any("=" in device for device in slot.missing_devices):
        mend = "nvidia-ctk cdi generate --output=/etc/cdi/nvidia.yaml, or another `device`"
        return line.fail(f"slot {slot.name}: no CDI file describes {devices}", mend)
    return line.fail(f"slot {slot.name}: this machine has no {devices}", "install the driver, or another `device`")


def _secrets(found: Findings) -> Checks:
    if isinstance(found.secrets, Known):
        yield from (_secret(secret) for secret in found.secrets.value)
    elif isinstance(found.declared, Known):
        yield Line("manifests", "secrets").unknown(found.secrets)


def _secret(secret: Secret) -> Check:
    line, name = Line("manifests", "secrets"), f"{secret.use}: {secret.ref}"
    if isinstance(secret.trouble, Unknown):
        return line.unknown(Unknown(f"{name}: {secret.trouble.reason}"), secret.hint)
    if secret.trouble.value:
        return line.fail(f"{secret.use}: {secret.trouble.value}", secret.hint)
    if secret.mode is not None and secret.mode & _OTHERS:
        return line.warn(f"{name} has mode {secret.mode:04o}: others may read it", f"chmod 600 {secret.ref.name}")
    return line.ok(name)


def _trust(found: Findings) -> Checks:
    if isinstance(found.trust, Unknown):
        yield Line("manifests", "CA bundle").unknown(found.trust)
        return
    yield from (_bundle(each) for each in found.trust.value)


def _bundle(trust: Trust) -> Check:
    line, variable = Line("manifests", "CA bundle"), trust.chosen_by
    text = f"{trust.path} (by {variable})" if variable else trust.path
    if trust.certificates:
        return line.ok(f"{text}: {trust.certificates} authorities")
    if variable:
        return line.fail(f"{text}: no certificate can be read there", f"correct {variable}, or unset it")
    return line.warn(f"{text}: no certificate there: no https upstream is trusted", "apt-get install ca-certificates")


def _certificates(found: Findings) -> Checks:
    if isinstance(found.certificates, Known):
        yield from (_certificate(each, found.now) for each in found.certificates.value)
    elif isinstance(found.declared, Known):
        yield Line("manifests", "upstreams").unknown(found.certificates)


def _certificate(shown: Certificate, now: float) -> Check:
    line, name = Line("manifests", "upstreams"), f"{shown.upstream} ({shown.address})"
    if shown.trouble:
        mend = "if it is meant to be so, add its authority to the CA bundle that SSL_CERT_FILE names"
        return line.fail(f"{name} is not trusted: {shown.trouble}", mend)
    if isinstance(shown.expires, Unknown):
        return line.unknown(Unknown(f"{name}: {shown.expires.reason}"), f"hal0 upstream test {shown.upstream}")
    left = shown.expires.value - now
    if left < _SOON:
        return line.warn(f"{name}: its certificate ends in {show_duration(left)}", "tell whoever runs it")
    return line.ok(f"{name}: trusted, its certificate is good for {show_duration(left)}")


def _by(holder: str) -> str:
    return f" by {holder}" if holder else ""
