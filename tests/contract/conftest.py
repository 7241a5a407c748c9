"""The consuming half of the pipeline, as the activity service's own tests have it."""

from tests.unit.activity.conftest import bus, pipeline, publisher, settings, start_pipeline

__all__ = ["bus", "pipeline", "publisher", "settings", "start_pipeline"]
