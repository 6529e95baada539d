#include "pool.h"

#include <pthread.h>
#include <signal.h>

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <mutex>
#include <system_error>
#include <thread>

namespace dtrain {
namespace {

struct Job {
    Slice slice;
    void* context;
    std::int64_t n, slices;
    int threads;
    std::atomic<std::int64_t> next{0};

    void work() {
        for (std::int64_t i; (i = next.fetch_add(1, std::memory_order_relaxed)) < slices;)
            slice(context, n * i / slices, n * (i + 1) / slices);
    }
};

class Pool {
public:
    explicit Pool(int threads) : threads_(threads) {}

    void run(Job& job) {
        std::unique_lock<std::mutex> only(submit_, std::try_to_lock);
        if (!only.owns_lock()) return job.work();
        start_workers(job.threads - 1);
        publish(&job);
        for (int i = 1; i < job.threads; ++i) wake_.notify_one();
        job.work();
        std::unique_lock<std::mutex> lock(state_);
        job_ = nullptr;                                 // who wakes late finds nothing and never sees this stack frame
        idle_.wait(lock, [this] { return active_ == 0; });
    }

    std::atomic<int> threads_;
    std::atomic<int> started_{0};

private:
    void publish(Job* job) {
        std::lock_guard<std::mutex> lock(state_);
        job_ = job;
        ++generation_;
    }

    void start_workers(int wanted) {
        sigset_t all, before;
        while (started_ < wanted) {
            sigfillset(&all);                           // signals belong to Python's threads
            pthread_sigmask(SIG_SETMASK, &all, &before);
            try {
                std::thread(&Pool::worker, this).detach();
                ++started_;
            } catch (const std::system_error&) {        // no more threads to be had: fewer do the work
                wanted = started_;
            }
            pthread_sigmask(SIG_SETMASK, &before, nullptr);
        }
    }

    void worker() {
        std::uint64_t seen = 0;
        std::unique_lock<std::mutex> lock(state_);
        for (;;) {
            wake_.wait(lock, [&] { return job_ != nullptr && generation_ != seen; });
            seen = generation_;
            Job* job = job_;
            ++active_;
            lock.unlock();
            job->work();
            lock.lock();
            if (--active_ == 0) idle_.notify_one();
        }
    }

    std::mutex submit_, state_;
    std::condition_variable wake_, idle_;
    Job* job_ = nullptr;
    std::uint64_t generation_ = 0;
    int active_ = 0;
};

// Never destroyed: sleeping threads may outlive static destructors at exit. After a fork the parent's is left alone,
// its threads do not exist here and its locks may be held by them.
Pool* pool = nullptr;
std::once_flag once;

Pool& current() {
    std::call_once(once, [] {
        pool = new Pool(1);
        pthread_atfork(nullptr, nullptr, [] { pool = new Pool(1); });
    });
    return *pool;
}

thread_local bool inside = false;                       // a slice that calls parallel_for runs it inline

}  // namespace

void parallel_for(std::int64_t n, std::int64_t grain, Slice slice, void* context) {
    if (n <= 0) return;
    Pool& workers = current();
    std::int64_t slices = n / std::max<std::int64_t>(grain, 1);
    int threads = static_cast<int>(std::min<std::int64_t>(workers.threads_, slices));
    if (threads < 2 || inside) return slice(context, 0, n);
    Job job{slice, context, n, slices, threads};
    inside = true;
    workers.run(job);
    inside = false;
}

void set_num_threads(int count) { current().threads_ = std::max(count, 1); }
int get_num_threads() { return current().threads_; }
int running_threads() { return current().started_; }

}  // namespace dtrain
