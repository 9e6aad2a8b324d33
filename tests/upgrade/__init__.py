"""What earlier versions left in a cluster: their chart, and the children that they made of the golden inputs.

`python -m tests.upgrade.record` adds the present version when it is released; a recorded folder is never changed.
"""
