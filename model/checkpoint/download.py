"""Weights onto this machine before anybody needs them: many tasks that start at once must not all ask the Hub."""

from run_batch.model.checkpoint.settings import ModelSettings, SettingsError, build_engine_args, build_model_config


def download_model(settings: ModelSettings) -> None:
    """Bring the weights of a model of the Hub into the Hub's cache on this machine: those that vLLM will load.

    Raises:
        SettingsError: the settings do not hold, or the weights cannot be had.
    """
    from vllm.model_executor.model_loader import get_model_loader

    loader = get_model_loader(build_engine_args(settings).create_load_config())
    try:
        loader.download_model(build_model_config(settings))
    except (OSError, ValueError, RuntimeError) as error:
        raise SettingsError(f"model.path {settings.path} cannot be downloaded: {error}") from error
