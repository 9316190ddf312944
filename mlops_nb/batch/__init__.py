"""Batch scoring on this machine: what Azure ML's batch deployment file says, by worker processes over files of any size.

`files` lists the input, `plan` cuts it into mini batches, `driver` hands these to the processes of `work`, which `read` rows,
`fit` them to the model's signature and write parts; `output` makes one result of the parts; `job` is the folder that all of it
stands in, so that a killed job goes on where it was.
"""
