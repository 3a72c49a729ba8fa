"""Every public layer keeps the promises that `check_layer` checks. On every installed engine."""

import pytest
from samples import ABSTRACT, FOREIGN, SAMPLES, public_layers

import cornu


def test_every_public_layer_has_a_sample():
    assert sorted(public_layers()) == sorted({*SAMPLES, *ABSTRACT, *FOREIGN})


@pytest.mark.parametrize("name", SAMPLES)
def test_layer_keeps_its_promises(name):
    sample = SAMPLES[name]
    layer = sample.make()
    assert type(layer).__name__ == name
    report = cornu.check_layer(layer, sample.value, engines=cornu.engines.available(), **sample.arguments)
    assert report.ok, str(report)
