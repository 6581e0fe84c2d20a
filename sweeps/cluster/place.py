"""Where a verb trains: on this machine, or with `--cluster` on the nodes of a Ray cluster."""

from dataclasses import dataclass

from pipelines.runtime.errors import UserError


@dataclass(frozen=True)
class Place:
    """Where trainings run, as given on the command line.

    Attributes:
        cluster: "local" starts a cluster of this machine, "auto" takes the one that this machine is part of, anything
            else is the address of its head, HOST:PORT. None trains on this machine without Ray.
        workers: Trainings in parallel; None is 1 on this machine, and as many as a cluster has room for.
        cpus: CPUs of each training on a cluster; None shares those of a node that has GPUs, and is 1 on others.
        gpus: GPUs of each training on a cluster, perhaps a fraction; None is 1 if the cluster has any.
    """

    cluster: str | None = None
    workers: int | None = None
    cpus: float | None = None
    gpus: float | None = None

    def check(self) -> None:
        """Check what can be seen without Ray.

        Raises:
            UserError: A number or the address is invalid.
        """
        for name, number in (("--cpus", self.cpus), ("--gpus", self.gpus)):
            if number is not None and self.cluster is None:
                raise UserError(f"{name} goes with --cluster; on one machine, --workers share CPU cores and GPUs")
        if self.cluster is None:
            return
        if self.cluster not in ("local", "auto") and not self.cluster.rpartition(":")[2].isdecimal():
            raise UserError(f"--cluster {self.cluster}: expected local, auto, or HOST:PORT, the address of Ray's head")
        if self.cluster.startswith("ray://"):
            raise UserError(f"--cluster {self.cluster}: call litlab on a node of the cluster, with auto or HOST:PORT")
        if self.workers is not None and self.workers < 1:
            raise UserError(f"--workers {self.workers}: expected at least 1")
        if self.cpus is not None and self.cpus <= 0:
            raise UserError(f"--cpus {self.cpus:g}: expected more than 0")
        if self.gpus is not None and (self.gpus < 0 or (self.gpus > 1 and self.gpus != int(self.gpus))):
            raise UserError(f"--gpus {self.gpus:g}: expected a whole number, or a fraction of one GPU")
