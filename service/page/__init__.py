"""The live page at `/`: what `/sync` tells, as it happens, for people."""
