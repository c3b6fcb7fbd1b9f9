"""`doctor` compares what is installed with the pins."""

from utils.core.doctor import doctor


def test_a_missing_package_fails_and_another_version_warns(tmp_path):
    pins = tmp_path / "requirements.txt"
    pins.write_text("# a comment\nno-such-package-here==1.0\npydantic==0.0.1\n")
    checks = {check.name: check for check in doctor(tmp_path, pins).checks}
    assert checks["no-such-package-here"].status == "fail"
    assert "pip install no-such-package-here==1.0" in checks["no-such-package-here"].summary
    assert checks["pydantic"].status == "warn"
    assert "tested with 0.0.1" in checks["pydantic"].summary


def test_the_device_is_named_with_its_measured_peak(tmp_path):
    pins = tmp_path / "requirements.txt"
    pins.write_text("")
    device = next(check for check in doctor(tmp_path, pins).checks if check.name == "device")
    assert "TFLOP/s" in device.summary
