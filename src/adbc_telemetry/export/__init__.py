"""Where events go: each exporter in a module of its own, all of them interchangeable and stackable."""
