"""Downloads a model's weights before a job starts, so that many tasks do not all ask the Hub at once."""

from run_batch.model.checkpoint.settings import ModelSettings, SettingsError, build_engine_args, build_model_config


def download_model(settings: ModelSettings) -> None:
    """Download the weights that vLLM will load into the Hub's cache on this machine.

    Raises:
        SettingsError: the settings are wrong, or the download fails.
    """
    from vllm.model_executor.model_loader import get_model_loader

    loader = get_model_loader(build_engine_args(settings).create_load_config())
    try:
        loader.download_model(build_model_config(settings))
    except (OSError, ValueError, RuntimeError) as error:
        raise SettingsError(f"model.path {settings.path} cannot be downloaded: {error}") from error
