"""Few lessons for the floor: drawing thousands takes long where every call of every function is checked."""

import pytest

from persimmon_lab.evaluation import five_gram

FEW = 300


@pytest.fixture(scope="module", autouse=True)
def few_lessons():
    caches = five_gram.taught_texts, five_gram.taught_five_gram
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(five_gram, "lessons", lambda lessons=five_gram.lessons: lessons(FEW))
        for cache in caches:
            cache.cache_clear()
        yield
    for cache in caches:
        cache.cache_clear()
