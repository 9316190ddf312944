"""What hosts an endpoint beside our own processes: nginx, systemd, Kubernetes; all generated, none of it edited by hand."""
