class MLComputeDevice:
    @classmethod
    def get_all_compute_devices(cls):
        return [MLCPUComputeDevice(), MLGPUComputeDevice(), MLNeuralEngineComputeDevice()]


class MLCPUComputeDevice(MLComputeDevice):
    pass


class MLGPUComputeDevice(MLComputeDevice):
    pass


class MLNeuralEngineComputeDevice(MLComputeDevice):
    total_core_count = 16
