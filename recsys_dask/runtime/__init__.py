"""Clusters, memory and progress: the only code that makes a cluster or asks about one."""
