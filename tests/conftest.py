from hypothesis import settings

# A machine that is busy with other tests is no failure.
settings.register_profile("runspan", deadline=None)
settings.load_profile("runspan")
