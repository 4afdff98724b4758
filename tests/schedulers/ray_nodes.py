"""A Ray cluster of several nodes on this machine: says its address, kills a node for each line that it reads, and ends
with its input. Runs on the Python that has Ray.
"""

import sys

from ray.cluster_utils import Cluster

cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
nodes = [cluster.add_node(num_cpus=1) for _ in range(int(sys.argv[1]))]
cluster.wait_for_nodes()
print(cluster.address, flush=True)
for _ in sys.stdin:
    cluster.remove_node(nodes.pop(), allow_graceful=False)
    print("killed", flush=True)
cluster.shutdown()
