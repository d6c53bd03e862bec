"""From archives and settings to ready models: TorchServe's process, its management API, its keys, its workers."""
