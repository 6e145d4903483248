"""FedPhantom: federated, audited synthetic MRI. Share the phantom, not the patient."""

__version__ = "0.1.0"
