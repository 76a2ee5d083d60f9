"""The faults of `make planted` can still be planted."""

from __future__ import annotations

from planted import FAULTS, ROOT, planted


def test_every_fault_changes_a_module_into_another_that_runs() -> None:
    assert len(FAULTS) >= 20
    for fault in FAULTS.values():
        compile(planted(fault, ROOT), fault.path, "exec")
        assert fault.old != fault.new
        assert all((ROOT / "tests" / f"test_{name}.py").exists() for name in fault.tests.split())
