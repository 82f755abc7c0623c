"""The model of `fastelbo demo --framework numpy`: ``fastelbo.VAE`` as it is."""

from contextlib import nullcontext

from fastelbo import VAE


class Model(VAE):
    """And what the demo says of it."""

    FILE, READ_BY = "vae.npz", "fastelbo.VAE.load"

    @staticmethod
    def threads(n):
        """A context in which BLAS uses n threads, where threadpoolctl is there to see to it."""
        try:
            from threadpoolctl import threadpool_limits
        except ImportError:
            return nullcontext()
        return threadpool_limits(n, user_api="blas")

    def describe_threads(self):
        ours = f"{self.num_threads} for the kernels"
        try:
            from threadpoolctl import threadpool_info
        except ImportError:
            return ours
        pools = [pool for pool in threadpool_info() if pool["user_api"] == "blas"]
        theirs = f", {pools[0]['num_threads']} for {pools[0]['internal_api']}" if pools else ""
        return ours + theirs
