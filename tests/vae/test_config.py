"""Settings that nothing would read are refused, and left out where another architecture is laid over a recipe."""

import pytest

from utils.core.config import ConfigError
from utils.vae.config import READ_BY, VAEConfig, readable


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"architecture": "dense", "channels": 8},
            "dense does not read channels .now 8, .* drop it, or leave it at 16",
        ),
        ({"architecture": "dense", "widths": (8, 8)}, "dense does not read widths"),
        ({"architecture": "spatial", "colours": 4}, "spatial does not read colours .*which palette do"),
        ({"architecture": "palette", "latents": 4}, "palette does not read latents"),
        ({"padding_weight": 0.5}, "palette does not read padding_weight"),
        ({"schedule": "constant", "rise": 0.5}, "schedule constant does not read rise"),
        ({"cycles": 2}, "schedule linear does not read cycles"),
    ],
)
def test_a_setting_that_nothing_reads_is_refused_and_named(settings, message):
    with pytest.raises(ConfigError, match=message):
        VAEConfig.load(**settings)
    assert VAEConfig.load(**readable(settings)) == VAEConfig.load(
        **{name: value for name, value in settings.items() if name not in READ_BY}
    )


def test_a_saved_config_which_names_every_setting_is_taken(tmp_path):
    config = VAEConfig(architecture="dense", latents=4, schedule="cyclical", rise=0.5)
    assert VAEConfig.load(config.save(tmp_path / "config.yaml")) == config
    assert config.replace(beta=1.0).latents == 4


def test_what_is_read_is_kept():
    settings = {"architecture": "spatial", "channels": 3, "schedule": "cyclical", "cycles": 9, "beta": 2.0}
    assert readable(settings) == settings
    assert readable({"channels": 3, "rise": 0.1}) == {"channels": 3, "rise": 0.1}  # of the defaults: palette, linear
