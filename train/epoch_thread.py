"""The threads that make an epoch's batches, and the watch over them.

FFCV's EpochIterator leaves its consumer waiting for ever when the thread ends with an exception, or
does not come back from a read. Here both end the epoch with an error. The thread ends when its
consumer goes away.
"""

from __future__ import annotations

import queue
import threading
import weakref
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

import numba
from ffcv.loader.epoch_iterator import EpochIterator

from prep.program import UserError, first_line
from train.reading import Reading

TICK = 0.05  # seconds between looks at whether a thread is still to be waited for
NAMED = 3  # samples in a message
UNLIMITED = 1 << 30  # batches
PATIENCE = 5.0  # seconds for a thread to end that may be stalled


class PipelineThread(threading.Thread):
    """Makes the batches of all epochs, with so many of numba's threads; ends with stop().

    FFCV's decoder keeps memory for every thread that ever called it, and every thread that starts
    numba's kernels has numba's threads of its own: a new one for each epoch would leave both.
    """

    def __init__(self, workers: int) -> None:
        super().__init__(daemon=True)
        self._workers = workers
        self._todo: queue.SimpleQueue[tuple[Callable[[], Any], Future[Any]] | None]
        self._todo = queue.SimpleQueue()
        self._epoch: weakref.ref[EpochThread] | None = None
        self.start()

    def stop(self) -> None:
        """End it, and wait: a thread that has run kernels must not outlive the interpreter."""
        self._todo.put(None)
        if self._epoch is not None and (epoch := self._epoch()) is not None:
            epoch.give_up()
        if threading.current_thread() is not self:
            self.join(PATIENCE)

    def run(self) -> None:
        numba.set_num_threads(self._workers)
        numba.set_parallel_chunksize(1)  # samples: none waits for another's share of a batch
        while (item := self._todo.get()) is not None:
            work, future = item
            try:
                future.set_result(work())
            except BaseException as error:
                future.set_exception(error)
            del item, work, future  # they hold the epoch, which is to end when it is over

    def make(self, epoch: EpochThread, work: Callable[[], None]) -> None:
        """Run the work of an epoch on this thread, wait for its end, and pass its exception on."""
        future: Future[Any] = Future()
        self._epoch = weakref.ref(epoch)
        self._todo.put((work, future))
        future.result()


class EpochThread(EpochIterator):  # type: ignore[misc]
    """The batches of one epoch; to be closed. `stall`: seconds that one batch may take."""

    def __init__(
        self, loader: Any, order: Any, reading: Reading, stall: float, pipeline: PipelineThread
    ) -> None:
        self._reading, self._stall, self._pipeline = reading, stall, pipeline
        self._failure: BaseException | None = None
        self._begun = 0  # batches
        self._stalled = self._ended = False
        super().__init__(loader, order)

    def run(self) -> None:
        """What the thread does; FFCV's base class starts it."""
        try:
            self._pipeline.make(self, super().run)
        except BaseException as error:
            self._failure = error
            self.output_queue.put(None)

    def run_pipeline(self, number: int, samples: Any, slot: int, event: Any) -> Any:
        stream = self.cuda_streams[slot]
        if stream is not None:
            # FFCV copies without waiting, from memory of the host that is now filled again.
            stream.synchronize()
        if self._ended:
            raise StopIteration  # which FFCV takes for the end of the epoch
        self._begun += 1
        return super().run_pipeline(number, samples, slot, event)

    def __next__(self) -> Any:
        """The next batch. Raises StopIteration after the last, UserError when there will be none.

        An empty queue means that a batch is under way. The seconds that this process waits for it
        are counted, not the clock's: it may have been stopped meanwhile.
        """
        filled, waited, begun = self.output_queue.not_empty, 0.0, self._begun
        with filled:
            while not filled.wait_for(lambda: self.output_queue.queue, timeout=TICK):
                waited = waited + TICK if begun == self._begun else 0.0
                begun = self._begun
                if waited > self._stall:
                    self._stalled = True
                    raise self._stall_error()
        try:
            return super().__next__()
        except StopIteration:
            if self._failure is not None:
                raise self._error(self._failure) from self._failure
            raise

    def close(self) -> None:
        """End the thread, and wait until it has ended, unless it is what stalled."""
        if self._ended:  # FFCV's base class closes again when it is thrown away
            return
        self.give_up()
        if self.is_alive() and not self._stalled:
            self.join()

    def give_up(self) -> None:
        """Have no batch made but the one under way."""
        self._ended = True
        super().close()
        room = self.output_queue.not_full
        with room:  # it may be waiting for some
            self.output_queue.maxsize = UNLIMITED
            room.notify_all()

    def _error(self, failure: BaseException) -> UserError:
        if isinstance(failure, UserError):
            return failure
        reason = first_line(failure)
        return UserError(
            f"{self._reading.path}: the loader failed: {reason}; check the file with `prep verify`"
        )

    def _stall_error(self) -> UserError:
        samples = self._reading.waiting()
        named = ", ".join(map(str, samples[:NAMED])) + (", ..." if len(samples) > NAMED else "")
        during = f"reading samples {named}" if samples else "asking for the next batch's samples"
        return UserError(
            f"{self._reading.path}: no batch for {self._stall:g} s while {during}; "
            "see whether the disk or the network file system answers, then run the same command "
            "again"
        )
