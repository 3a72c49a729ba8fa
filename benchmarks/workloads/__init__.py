"""The workloads, in the order of the tables."""

from benchmarks.workload import Workload
from benchmarks.workloads import autoencoder, cnn, mlp, recommender, recurrent, resnet, transformer

__all__ = ["WORKLOADS"]

WORKLOADS: dict[str, Workload] = {
    workload.name: workload
    for workload in (
        mlp.TINY,
        mlp.MLP,
        cnn.CNN,
        resnet.RESNET,
        recurrent.LSTM,
        recurrent.GRU,
        transformer.ENCODER,
        transformer.DECODER,
        recommender.RECOMMENDER,
        autoencoder.AUTOENCODER,
    )
}
