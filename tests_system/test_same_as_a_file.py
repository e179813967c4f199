"""Profiles on a server do what profiles in a file do: the same tests, on PostgreSQL."""

from types import ModuleType

from tests import test_profile
from tests.chat import test_storing
from tests.storage import test_search, test_transfer

OF_THE_FILE = {  # tests that change the file, limit its size, lock it, or look for it
    "test_a_chat_in_which_nothing_was_set_or_said_is_not_stored_and_gets_an_id",
    "test_with_a_full_disk_the_answer_is_available_and_nothing_earlier_is_lost",
    "test_a_disk_that_is_full_before_the_question_lets_a_stream_be_read_to_its_end",
    "test_an_edit_that_cannot_be_stored_is_rolled_back",
    "test_a_damaged_item_is_named",
    "test_a_lock_on_the_database_does_not_block_the_event_loop",
    "test_a_task_cancelled_while_storing_ends_after_the_store_is_rolled_back",
    "test_an_export_that_fails_leaves_no_file",
    "test_an_export_that_is_killed_leaves_only_a_part_that_is_not_imported",
    "test_a_damaged_history_is_not_exported",
}
OF_LISTINGS = {
    "test_profiles_do_not_see_each_other",
    "test_sessions_are_listed_with_the_last_changed_first",
    "test_a_cursor_continues_after_a_page",
    "test_a_marker_filters",
    "test_a_wrong_argument_of_a_listing_is_refused",
}


def shared(module: ModuleType) -> dict[str, object]:
    """The tests of a module and the fixtures that only it has."""
    return {
        name: value
        for name, value in vars(module).items()
        if name not in OF_THE_FILE | {"profile", "filled"}
        and (name.startswith("test_") or type(value).__name__ == "FixtureFunctionDefinition")
    }


globals().update({n: test for n, test in shared(test_profile).items() if n in OF_LISTINGS})
for module in (test_storing, test_search, test_transfer):
    globals().update(shared(module))
