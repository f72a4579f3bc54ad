"""Kills, damaged files, continued runs: what must end the same, and what must be seen."""

from tests.mutation_lists.mutation import Mutation

FILES = "test_files.py::"
CHECKPOINTS = "callbacks/test_checkpoints.py::"
LOGS = "callbacks/test_logs.py::"
IDENTITY = "training/test_identity.py::"
DAMAGE = "pipeline/test_damage.py::"

NAMES = "test_names.py::"

MUTATIONS = (
    Mutation(
        "moved code is hashed by its present place",
        "plan/content.py",
        "        return recorded(value)\n",
        "        return value\n",
        NAMES + "test_a_plan_keeps_its_hashes_when_code_moves",
    ),
    Mutation(
        "an old name in a YAML file is not found any more",
        "plan/overlay.py",
        "present_in(_written_out(content, 0, itertools.count(1)))",
        "_written_out(content, 0, itertools.count(1))",
        NAMES + "test_an_old_name_in_a_pipeline_runs_with_a_line",
    ),
    Mutation(
        "an old module's name imports a second copy of it",
        "names.py",
        "        sys.modules[module.__name__] = "
        "importlib.import_module(present(module.__name__))\n",
        "        now = importlib.util.find_spec(present(module.__name__))\n"
        "        now.loader.exec_module(module)\n",
        NAMES + "test_an_old_module_imports_as_the_present_one_with_a_line",
    ),
    Mutation(
        "any longer name counts as one that has moved",
        "names.py",
        "    for length in range(len(parts), 1, -1):\n"
        '        if start := table.get(".".join(parts[:length])):\n'
        '            return ".".join([start, *parts[length:]])\n',
        "    for old, now in table.items():\n"
        "        if name.startswith(old):\n"
        "            return now + name.removeprefix(old)\n",
        NAMES + "test_only_whole_names_of_this_package_count",
    ),
    Mutation(
        "a file's name is on the disk before its content",
        "files.py",
        "        sync(beside)\n        os.replace(beside, path)\n",
        "        os.replace(beside, path)\n",
        FILES + "test_content_is_on_the_disk_before_the_name_is",
    ),
    Mutation(
        "a renamed file may be gone after a loss of power",
        "files.py",
        "        os.replace(beside, path)\n        sync(path.parent)\n",
        "        os.replace(beside, path)\n",
        FILES + "test_content_is_on_the_disk_before_the_name_is",
    ),
    Mutation(
        "a file is hashed anew only when its size changes",
        "files.py",
        "seen = now.st_size, now.st_mtime_ns, now.st_ctime_ns, now.st_ino",
        "seen = now.st_size, now.st_ino",
        FILES + "test_a_changed_byte_shows",
    ),
    Mutation(
        "size and time are enough for who reads a file",
        "files.py",
        '== was["mtime_ns"] and not thorough:',
        '== was["mtime_ns"]:',
        FILES + "test_a_byte_that_changed_by_itself_shows_to_a_thorough_look",
    ),
    Mutation(
        "a record's own hash is not looked at",
        "files.py",
        "return content if seal == sha_of(content) else None",
        "return content",
        FILES + "test_every_changed_bit_of_a_record_is_seen",
    ),
    Mutation(
        "a checkpoint's seal is not compared",
        "callbacks/checkpoints.py",
        "return _SEAL + _digest(file, size - _TAIL - _LENGTH) == comment",
        "return True",
        CHECKPOINTS + "test_no_changed_bit_and_no_missing_byte_passes",
    ),
    Mutation(
        "the checkpoint before the last is not kept",
        "callbacks/checkpoints.py",
        "    if last.exists():\n        os.replace(last, folder / PREVIOUS)\n",
        "",
        CHECKPOINTS + "test_the_last_two_are_kept_and_nothing_else",
    ),
    Mutation(
        "only last.ckpt can be continued from",
        "callbacks/checkpoints.py",
        "for path in (folder / LAST, folder / PREVIOUS):",
        "for path in (folder / LAST,):",
        CHECKPOINTS + "test_the_newest_whole_one_is_found",
    ),
    Mutation(
        "a checkpoint is written before a validation that is due",
        "callbacks/resume.py",
        "self._waits_for_validation = _validation_is_due(trainer)",
        "self._waits_for_validation = False",
        LOGS + "test_saved_after_every_step_it_is_the_same_log",
    ),
    Mutation(
        "the checkpoint's own step is never logged",
        "callbacks/resume.py",
        "self._row, self._row_step = _row_to_come(trainer)",
        "self._row, self._row_step = {}, 0",
        LOGS + "test_saved_after_every_step_it_is_the_same_log",
    ),
    Mutation(
        "figures of an epoch's first step are missing from the rows after a continuation",
        "callbacks/resume.py",
        "            pl_module.log_dict(self._standing, batch_size=1)\n",
        "",
        LOGS + "test_saved_after_every_step_it_is_the_same_log",
    ),
    Mutation(
        "a log keeps what was logged after the checkpoint",
        "callbacks/logs.py",
        "            os.truncate(path, length)\n",
        "            pass\n",
        LOGS + "test_stopped_anywhere_and_continued_it_is_the_same_log",
    ),
    Mutation(
        "the log is not flushed with the checkpoint",
        "callbacks/logs.py",
        "        logger.save()\n    found = {}",
        "        pass\n    found = {}",
        LOGS + "test_saved_after_every_step_it_is_the_same_log",
    ),
    Mutation(
        "the CSV log of before a continuation is deleted",
        "callbacks/logs.py",
        "    writer.metrics[:0] = rows\n",
        "",
        LOGS + "test_stopped_anywhere_and_continued_it_is_the_same_log",
    ),
    Mutation(
        "a finished training that is asked again has logged nothing",
        "callbacks/resume.py",
        'self._metrics_before = state_dict["metrics"]',
        "self._metrics_before = {}",
        LOGS + "test_a_finished_training_that_is_asked_again_knows_what_it_logged",
    ),
    Mutation(
        "a checkpoint of another config is taken",
        "training/identity.py",
        "    if changed:\n",
        "    if False:\n",
        IDENTITY + "test_another_setting_is_refused_by_name",
    ),
    Mutation(
        "an input that was changed in place is not noticed by a checkpoint",
        "training/identity.py",
        "key: [canonical(by_content(value)), canonical(value)]",
        "key: [canonical(value), canonical(value)]",
        IDENTITY + "test_an_input_counts_by_its_content",
    ),
    Mutation(
        "callbacks that train may change",
        "training/identity.py",
        "if not _looks_on(",
        "if False and not _looks_on(",
        IDENTITY + "test_another_setting_is_refused_by_name",
    ),
    Mutation(
        "an edited reward class is up to date",
        "plan/content.py",
        'return {"code": value, "sha256": source}',
        "return value",
        "plan/test_content.py::"
        "test_an_edited_reward_counts_and_so_does_what_it_imports_of_the_users",
    ),
    Mutation(
        "code that a reward class imports does not count",
        "plan/content.py",
        "waiting += _imports(path, package)",
        "pass",
        "plan/test_content.py::"
        "test_an_edited_reward_counts_and_so_does_what_it_imports_of_the_users",
    ),
    Mutation(
        "an input is not looked at before it is read",
        "plan/state.py",
        "plan.jobs[name] for name in upstream if not standing.done(name, thorough=True)",
        "plan.jobs[name] for name in upstream if not plan.folder(plan.jobs[name]).exists()",
        DAMAGE + "test_a_flipped_bit_in_an_input_is_found_before_it_is_read",
    ),
    Mutation(
        "an input is looked at only where its time changed",
        "plan/state.py",
        "absent = [plan.jobs[name] for name in names if not standing.done(name, thorough=True)]",
        "absent = [plan.jobs[name] for name in names if not standing.done(name)]",
        DAMAGE + "test_a_bit_that_a_disk_flipped_is_found_by_whoever_reads_it",
    ),
    Mutation(
        "a drawn table is not looked at again",
        "plan/state.py",
        "all(is_as_stamped(plan.results / name, was) for name, was in beside.items())",
        "True",
        DAMAGE + "test_a_frontier_that_was_changed_is_drawn_again",
    ),
    Mutation(
        "a changed row of the table counts",
        "results/run_records.py",
        'return record["rows"].get(str(row.step)) == row_sha(row)',
        "return True",
        DAMAGE + "test_no_changed_cell_of_the_table_passes",
    ),
    Mutation(
        "rows of a run that nobody made count",
        "results/run_records.py",
        "return not known or table_of(results, row.run_id).exists()",
        "return True",
        DAMAGE + "test_no_changed_cell_of_the_table_passes",
    ),
    Mutation(
        "the table as it was is lost when it is mended",
        "results/tables.py",
        "        atomic_write(beside, path.read_bytes())\n",
        "",
        DAMAGE + "test_no_changed_cell_of_the_table_passes",
    ),
    Mutation(
        "a changed per-prompt table is up to date",
        "results/run_records.py",
        "    if not belongs(path, table.name):\n",
        "    if False:\n",
        DAMAGE + "test_no_changed_bit_of_the_tables_passes",
    ),
    Mutation(
        "a missing per-prompt table costs a training",
        "pipeline/jobs.py",
        'if not job["fresh"] and _collect_again(job, folder):',
        "if False:",
        DAMAGE + "test_a_per_prompt_table_is_made_again_without_training",
    ),
    Mutation(
        "a frontier is drawn from changed rows",
        "report/read.py",
        "if wrong is not None and table_of(folder, run_id).exists():",
        "if False:",
        DAMAGE + "test_a_frontier_is_not_drawn_from_changed_tables",
    ),
    Mutation(
        "a frontier is drawn from a changed pool",
        "report/read.py",
        "if not all(belongs(record, path.name) for record in records):",
        "if False:",
        DAMAGE + "test_a_frontier_is_not_drawn_from_changed_tables",
    ),
    Mutation(
        "nobody hears of a stopped worker",
        "pipeline/scheduler.py",
        "if not worker.warned_of and worker.job is not None:",
        "if False:",
        "pipeline/test_worker_pool.py::"
        "test_a_worker_that_was_stopped_is_told_of_and_its_job_done_by_another",
    ),
    Mutation(
        "a folder that cannot be written is found out by the first result",
        "files.py",
        "        with tempfile.TemporaryFile(dir=folder):\n            pass\n",
        "        pass\n",
        FILES + "test_a_folder_that_cannot_be_written_is_one_sentence",
    ),
    Mutation(
        "weights are loaded whatever has become of them",
        "models/loading.py",
        "if path.is_dir() and (changed := changed_in(path)):",
        "if changed := []:",
        "models/test_loading.py::test_weights_that_changed_since_they_were_written_are_refused",
    ),
    Mutation(
        "a damaged cache of log-probs stops all of its runs",
        "models/reference.py",
        "if path.exists() and not belongs(known, path.name):",
        "if False:",
        "models/test_reference.py::test_a_damaged_cache_is_computed_again",
    ),
    Mutation(
        "the checkpoint of a finished training stays for ever",
        "results/run_records.py",
        "            (run.logs / name).unlink(missing_ok=True)\n",
        "            pass\n",
        "pipeline/test_run.py::test_leftovers_of_a_killed_write_are_removed",
    ),
    Mutation(
        "damaged texts are read",
        "results/run_folder.py",
        "        if not belongs(self.record, self.texts.name):",
        "        if False:",
        "results/test_run_folder.py::test_damaged_texts_are_not_read",
    ),
    Mutation(
        "an evaluation without its record is whole",
        "results/run_folder.py",
        "return self.record.exists() and all(",
        "return all(",
        "results/test_run_folder.py::test_an_evaluation_is_whole_if_each_file_is_what_was_written",
    ),
    Mutation(
        "evaluations go in the order of their names",
        "results/run_folder.py",
        "for step, logs in sorted(found)]",
        "for step, logs in sorted(found, key=lambda each: str(each[0]))]",
        "results/test_run_folder.py"
        "::test_evaluations_are_found_wherever_the_logger_put_them_in_order_of_steps",
    ),
    Mutation(
        "an evaluation that a kill cut short costs the training",
        "pipeline/training.py",
        "        if each.record.exists() and not each.is_whole\n",
        "        if not each.is_whole\n",
        "pipeline/test_training.py"
        "::test_only_an_evaluation_that_was_complete_and_changed_makes_a_training_start_over",
    ),
    Mutation(
        "a process of several ends as soon as it hears SIGTERM",
        "callbacks/resume.py",
        "if trainer.world_size > 1 and threading",
        "if False and threading",
        "callbacks/test_resume.py::test_several_processes_hear_sigterm_after_the_same_step",
    ),
    Mutation(
        "processes that agreed to end do not",
        "callbacks/resume.py",
        "trainer._signal_connector.received_sigterm = True",
        "pass",
        "callbacks/test_resume.py::test_several_processes_hear_sigterm_after_the_same_step",
    ),
    Mutation(
        "a second Ctrl-C waits for the step like the first",
        "callbacks/interrupt.py",
        "if not first or not callable(",
        "if not callable(",
        "callbacks/test_interrupt.py::test_the_first_becomes_sigterm_and_the_second_ends_at_once",
    ),
    Mutation(
        "a frontier is drawn again because a run took longer",
        "plan/state.py",
        "[replace(point, seconds=0.0) for point in read_points(points)]",
        "[replace(point) for point in read_points(points)]",
        "plan/test_state.py::test_the_frontier_depends_on_all_of_a_row_but_its_seconds",
    ),
    Mutation(
        "a cache writes on into the room of rows that were dropped",
        "models/cache.py",
        "        super().batch_select_indices(indices)\n        self._room = None",
        "        super().batch_select_indices(indices)",
        "models/test_cache.py::test_it_equals_the_librarys_cache_through_updates_and_selections",
    ),
    Mutation(
        "a run whose input is refused leaves its results folder",
        "pipeline/run.py",
        "    if made.is_new and refused and not has_output(made.folder):",
        "    if False:",
        "pipeline/test_run.py::test_input_that_is_refused_leaves_nothing_of_a_first_call_alone",
    ),
    Mutation(
        "a checkpoint is taken for nothing",
        "results/run_records.py",
        'path.suffix != ".log"',
        'path.suffix not in (".log", ".ckpt")',
        "results/test_run_records.py::test_starts_of_jobs_are_no_output[stages/sft/all/train/last.ckpt]",
    ),
    Mutation(
        "who waits for a lock holds that of a deleted folder",
        "pipeline/lock.py",
        "while os.fstat(fd).st_nlink == 0:",
        "while False:",
        "pipeline/test_lock.py::test_who_waits_for_a_folder_that_is_deleted_locks_the_new_one",
    ),
    Mutation(
        "stages count as failed inputs of each other where the settings of one are wrong",
        "pipeline/scheduler.py",
        "            self.failures.in_check = True",
        "            pass",
        "pipeline/test_run.py::test_wrong_configs_are_all_told_before_anything_is_done",
    ),
)
