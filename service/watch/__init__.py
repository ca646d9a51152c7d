"""How the system is doing: probes, `/sync`, metrics."""
